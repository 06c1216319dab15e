"""`gtask-ping`: for people, monitoring and keepalived; and TLS in both programs."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading

import pytest

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS
from .test_client import INI, TASKS
from .test_haproxy import free_port


def run(program, *words):
    done = subprocess.run(
        [sys.executable, str(ROOT / "bin" / program), *words],
        capture_output=True,
        text=True,
        timeout=30 * SLOWNESS,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def server(module_spawn):
    return module_spawn(INI.format(count=1) + "concurrency = 1\n", things=TASKS)


def test_ready(server):
    url = server.url()
    code, output, error = run("gtask-ping", url)
    assert (code, error) == (0, "")
    assert output.startswith(f"{url}: ready, 0 running, 0 waiting, ")
    assert run("gtask-ping", "--lvs", url)[0] == 102
    assert run("gtask-ping", "--lvs", "--weight", "10", url)[0] == 12
    code, output, _ = run("gtask-ping", "--json", url)
    answer = json.loads(output)
    assert (code, answer["status"], answer["url"]) == (0, "ready", url)
    assert answer["ms"] > 0


@pytest.mark.parametrize("streams", [">&-", ">/dev/full", "2>&-", "<&- >&- 2>&-", "| true"])
def test_lvs_never_says_down_of_a_ready_server(server, streams):
    command = (
        f"set -o pipefail; {sys.executable} {ROOT}/bin/gtask-ping --lvs {server.url()} {streams}"
    )
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 102
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["localhost.", "nonexistent..invalid", "ä" * 70, "%zz"])
def test_names(server, name):
    url = f"text://{name}:{server.address()[1]}"
    code, _, error = run("gtask-ping", url)
    assert code == (0 if name == "localhost." else 75), error
    assert error.count("\n") == (name != "localhost.")


@pytest.fixture
def answer():
    """A server that gives one fixed answer, or none, to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve(data):
            def run_server():
                try:
                    while True:
                        connection, _ = listener.accept()
                        kept.append(connection)
                        connection.recv(4096)
                        if data is not None:
                            connection.sendall(data)
                            connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass  # the test is over

            threading.Thread(target=run_server, daemon=True).start()
            return f"text://127.0.0.1:{listener.getsockname()[1]}"

        kept: list[socket.socket] = []
        yield serve
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_busy_is_a_quarter_of_the_weight(answer):
    url = answer(b'{"jsonrpc":"2.0","result":{"status":"busy","running":1},"id":1}\n')
    code, output, _ = run("gtask-ping", url)
    assert (code, output.startswith(f"{url}: busy, 1 running")) == (0, True)
    assert run("gtask-ping", "--lvs", url)[0] == 27


def test_draining_is_weight_0(answer):
    url = answer(b'{"jsonrpc":"2.0","result":{"status":"draining","running":3},"id":1}\n')
    code, output, _ = run("gtask-ping", url)
    assert (code, output.startswith(f"{url}: draining, 3 running")) == (1, True)
    assert run("gtask-ping", "--lvs", url)[0] == 2


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (None, "connected, but no answer in time"),
        (b"", "closed the connection without an answer"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is not a gtask worker"),
        (b'{"error":{"code":-32601,"message":"unknown"}}\n', "is not a gtask worker"),
        (b"[1]\n", "is not a gtask worker"),
        (b"[" * 60_000 + b"\n", "is not a gtask worker"),
        (b'{"result":{"status":["ready"]}}\n', "is not a gtask worker"),
        (b"x" * 70_000, "the answer has no end"),
    ],
)
def test_what_is_no_worker(answer, data, complaint):
    url = answer(data)
    code, output, error = run("gtask-ping", url, "--timeout", "0.5")
    assert (code, output) == (1, "")
    assert complaint in error
    assert error.count("\n") == 1
    assert run("gtask-ping", "--lvs", url, "--timeout", "0.5")[0] == 1


def test_down():
    url = f"text://127.0.0.1:{free_port()}"
    code, output, error = run("gtask-ping", url)
    assert (code, output) == (75, "")
    assert error == f"gtask-ping: {url}: cannot connect: Connection refused\n"
    code, output, _ = run("gtask-ping", "--json", url)
    assert (code, json.loads(output)["status"]) == (75, "down")
    assert run("gtask-ping", "--lvs", url)[0] == 1
    assert run("gtask-ping", "text+unix:///nonexistent.sock")[0] == 75


def test_wrong_usage():
    assert run("gtask-ping", "127.0.0.1:1")[0] == 2
    assert run("gtask-ping", "websocket://127.0.0.1:1")[0] == 2
    assert run("gtask-ping", "--lvs", "--weight", "254", "text://127.0.0.1:1")[0] == 2


def test_it_starts_without_gevent():
    code = "import sys, gtask.programs.ping; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A CA, and certificates of it for the server 127.0.0.1 and for a client."""
    assert shutil.which("openssl"), "openssl is missing: apt-get install openssl"
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    usage = ("-addext", "keyUsage=critical,keyCertSign")  # Python 3.13 wants it
    openssl(*new, "-x509", "-subj", "/CN=ca", *usage, "-keyout", "ca.key", "-out", "ca.pem")
    for name in ("server", "client"):
        signed = (
            "-CA",
            "ca.pem",
            "-CAkey",
            "ca.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        )
        names = ("-addext", "subjectAltName=IP:127.0.0.1")
        files = ("-keyout", f"{name}.key", "-out", f"{name}.pem")
        openssl(*new, "-x509", "-subj", f"/CN={name}", *signed, *names, *files)
    return folder


@pytest.mark.parametrize("demands_certificates", [False, True])
def test_tls(spawn, certificates, demands_certificates):
    tls = f"certfile = {certificates}/server.pem\nkeyfile = {certificates}/server.key\n"
    mine = []
    if demands_certificates:
        tls += f"cafile = {certificates}/ca.pem\n"
        mine = ["--cert", f"{certificates}/client.pem", "--key", f"{certificates}/client.key"]
    url = spawn(INI.format(count=1) + tls, things=TASKS).url()
    trust = ["--cafile", f"{certificates}/ca.pem"]
    call = ["add", "1", "2", "--connect-timeout", "2"]
    assert run("gtask-ping", url, *trust, *mine)[0] == 0
    assert run("gtask-call", url, *call, *trust, *mine)[:2] == (0, "3\n")
    assert run("gtask-call", url, *call, "--insecure", *mine)[:2] == (0, "3\n")
    assert run("gtask-call", url, *call, "--tls", "--bare", *trust, *mine)[:2] == (0, "3\n")
    code, _, error = run("gtask-call", url, *call, "--tls", *mine)
    assert (code, "certificate verify failed" in error.lower().replace("_", " ")) == (75, True)
    code, _, error = run("gtask-ping", url, "--tls", *mine)
    assert (code, "certificate verify failed" in error.lower().replace("_", " ")) == (1, True)
    assert run("gtask-call", url, *call)[0] != 0, "plain text"
    if demands_certificates:
        assert run("gtask-call", url, *call, *trust)[0] != 0
        assert run("gtask-ping", url, *trust)[0] == 1
