"""What a service does with connections: TLS, networks, limits, unix sockets, IPv6, no descriptors."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import stat
import subprocess
import time

import pytest

from ..support.peer import Peer
from ..support.spawn import kill
from ..support.wait import wait_until

MODULE = """
import os, time
from gtask import task

@task
def echo(value): return value

@task
def pid(): return os.getpid()

@task
def nap(seconds):
    print("napping", flush=True)
    time.sleep(seconds)
    return seconds

@task
def limit_descriptors(many):
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (many, many))
    return len(os.listdir("/proc/self/fd"))

@task
def cpu():
    t = os.times()
    return t.user + t.system
"""


def ini(*lines: str, listen: str = "text://127.0.0.1:0") -> str:
    return "\n".join(
        ["[gtask]", "control = control.sock", "[worker:Tasks]", f"listen = {listen}", "tasks = some", *lines]
    )  # fmt: skip


# -- TLS ----------------------------------------------------------------------------------------


def openssl(folder, *words: str) -> None:
    try:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.fail("openssl is missing: apt-get install openssl")


def certificate(folder, name: str, ca: str | None = None) -> None:
    """A key and a certificate for 127.0.0.1, signed by itself or by `ca`, as Python 3.13 wants it."""
    basics = ("-addext", "keyUsage=critical,digitalSignature,keyCertSign")
    if ca:
        basics = (
            "-CA",
            f"{ca}.pem",
            "-CAkey",
            f"{ca}.key",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        )
    openssl(
        folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
        "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.pem",
        *basics,
    )  # fmt: skip


class TlsPeer(Peer):
    def __init__(self, address, context: ssl.SSLContext) -> None:
        super().__init__(address)
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")


def test_tls_and_a_renewed_certificate(spawn, tmp_path):
    certificate(tmp_path, "first")
    certificate(tmp_path, "second")
    (tmp_path / "live.pem").write_bytes((tmp_path / "first.pem").read_bytes())
    (tmp_path / "live.key").write_bytes((tmp_path / "first.key").read_bytes())
    worker = spawn(
        ini(f"certfile = {tmp_path}/live.pem", f"keyfile = {tmp_path}/live.key"), some=MODULE
    )

    def trusting(name: str) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(tmp_path / f"{name}.pem"))

    with TlsPeer(worker.address(), trusting("first")) as peer:
        assert peer.bare("echo", "한" * 100_000) == "한" * 100_000
        for n in range(100):
            peer.send(b'{"function":"echo","args":[%d]}\n' % n)
        assert [peer.json() for _ in range(100)] == list(range(100))
    with worker.peer() as plain:  # a peer that speaks no TLS is turned away, and hurts nobody
        plain.send(b'{"function":"echo","args":[1]}\n')
        assert b"echo" not in plain.rest()

    for end in ("pem", "key"):
        (tmp_path / f"live.{end}").write_bytes((tmp_path / f"second.{end}").read_bytes())
    assert worker.command("reload").returncode == 0
    with TlsPeer(worker.address(), trusting("second")) as peer:
        assert peer.bare("echo", 1) == 1
    with pytest.raises(ssl.SSLError):
        TlsPeer(worker.address(), trusting("first"))


@pytest.mark.parametrize(
    ("key", "certfile", "keyfile", "cafile"),
    [
        ("certfile", "good.pem", "other.key", "good.pem"),
        ("cafile", "good.pem", "good.key", "bad.pem"),
    ],
)
def test_certificates_that_cannot_be_used_are_told_with_their_key(
    spawn, tmp_path, key, certfile, keyfile, cafile
):
    certificate(tmp_path, "good")
    certificate(tmp_path, "other")
    (tmp_path / "bad.pem").write_text("no certificate")
    files = {"certfile": certfile, "keyfile": keyfile, "cafile": cafile}
    lines = [f"{name} = {tmp_path}/{file}" for name, file in files.items()]
    worker = spawn(ini(*lines), wait=False, some=MODULE)
    assert worker.process.wait(20) == 78
    problem = f"worker.ini [worker:Tasks] {key}: cannot use {tmp_path}/{files[key]}"
    assert problem in worker.text
    check = worker.command("check")
    assert check.returncode == 78
    assert problem in check.stderr


def test_client_certificates(spawn, tmp_path):
    certificate(tmp_path, "ca")
    certificate(tmp_path, "server")
    certificate(tmp_path, "friend", ca="ca")
    certificate(tmp_path, "stranger")
    files = [f"{key} = {tmp_path}/{name}" for key, name in
             (("certfile", "server.pem"), ("keyfile", "server.key"), ("cafile", "ca.pem"))]  # fmt: skip
    worker = spawn(ini(*files), some=MODULE)
    context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
    context.load_cert_chain(tmp_path / "friend.pem", tmp_path / "friend.key")
    with TlsPeer(worker.address(), context) as peer:
        assert peer.bare("echo", "friend") == "friend"
    for name in (None, "stranger"):
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        if name:
            context.load_cert_chain(tmp_path / f"{name}.pem", tmp_path / f"{name}.key")
        with (
            pytest.raises((ssl.SSLError, EOFError, ConnectionError)),
            TlsPeer(worker.address(), context) as peer,
        ):
            peer.bare("echo", "stranger")


# -- who may connect, how many, how long ---------------------------------------------------------


def test_only_allowed_networks_may_connect(spawn):
    worker = spawn(ini("allow = 127.0.0.2, 10.0.0.0/8"), some=MODULE)
    host, port = worker.address()
    with worker.peer() as refused:
        assert refused.is_closed()
    allowed = socket.create_connection((host, port), source_address=("127.0.0.2", 0))
    allowed.sendall(b'{"function":"echo","args":[1]}\n')
    assert allowed.recv(10) == b"1\n"
    allowed.close()


def test_connections_past_the_limit_wait_their_turn(spawn):
    worker = spawn(ini("max_connections = 3"), some=MODULE)
    held = [worker.peer() for _ in range(3)]
    for peer in held:
        assert peer.bare("echo", 1) == 1
    late = worker.peer(timeout=0.5)
    late.send(b'{"function":"echo","args":["late"]}\n')
    with pytest.raises(TimeoutError):
        late.line()
    held.pop().socket.close()
    late.socket.settimeout(10)
    assert late.json() == "late"
    for peer in (*held, late):
        peer.socket.close()


def test_an_idle_connection_is_closed_and_a_busy_one_is_not(spawn):
    worker = spawn(ini("idle_timeout = 0.5"), some=MODULE)
    with worker.peer() as idle, worker.peer() as busy:
        busy.send(b'{"function":"nap","args":[2.5]}\n')
        assert idle.bare("echo", 1) == 1  # who never says a word is accepted a second later
        start = time.monotonic()
        assert idle.is_closed()
        assert time.monotonic() - start < 2.4
        assert busy.json() == 2.5


def test_without_descriptors_it_neither_spins_nor_dies_and_recovers(spawn):
    worker = spawn(ini(), some=MODULE)
    control = worker.peer()
    limit = control.bare("limit_descriptors", 40)
    assert limit < 40
    before = control.bare("cpu")
    held = [Peer(worker.address()) for _ in range(60)]
    for peer in held:
        peer.send(b" ")  # who never says a word is accepted a second later
    wait_until(lambda: "cannot accept connections" in worker.text, what=worker.text)
    assert control.bare("nap", 1.0) == 1.0  # for so long it has nothing to do but to spin
    assert control.bare("echo", "still here") == "still here"
    assert control.bare("cpu") - before < 0.5
    assert worker.text.count("cannot accept connections") <= 2
    for peer in held[:40]:
        peer.socket.close()
    assert held[-1].bare("echo", "at last") == "at last"
    for peer in (*held[40:], control):
        peer.socket.close()


# -- addresses ----------------------------------------------------------------------------------


def test_a_unix_socket_has_its_mode_and_goes_with_its_service(spawn, tmp_path):
    path = tmp_path / "tasks.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))  # left behind by a process that was killed
    stale.close()
    worker = spawn(ini("socket_mode = 600", listen=f"text+unix://{path}"), some=MODULE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with Peer(str(path)) as peer:
        assert peer.bare("echo", "unix") == "unix"
    assert worker.stop() == 0
    assert not path.exists()


def test_ipv6(spawn):
    worker = spawn(ini(listen="text://[::1]:0"), some=MODULE)
    with worker.peer() as peer:
        assert peer.bare("echo", 6) == 6


# -- the end of a process -----------------------------------------------------------------------


def test_a_drain_answers_what_runs_and_what_was_queued_and_refuses_the_rest(spawn):
    worker = spawn(ini("count = 2", "concurrency = 2"), some=MODULE)
    address = worker.address()
    peers = [Peer(address) for _ in range(8)]  # twice as many as there are turns
    for peer in peers:
        assert peer.bare("echo", 1) == 1  # it has been accepted
    for peer in peers:
        peer.send(b'{"function":"nap","args":[0.7]}\n')
    wait_until(lambda: worker.text.count("napping") >= 4, what="calls that run")
    worker.send_signal(signal.SIGTERM)

    def refused() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(address) != 0

    wait_until(refused, 2, "new connections are refused")
    assert worker.process.poll() is None
    assert [peer.json() for peer in peers] == [0.7] * 8
    assert worker.process.wait(10) == 0
    for peer in peers:
        peer.socket.close()


def test_a_killed_workers_caller_sees_the_end_and_others_nothing(spawn):
    worker = spawn(ini("count = 2"), some=MODULE)
    peers, pids = [], []
    while (
        len(peers) < 6 or len(set(pids)) < 2
    ):  # one that is answered weighs little: several may go to one
        assert len(peers) < 40
        peers.append(worker.peer())
        pids.append(peers[-1].bare("pid"))
    victim = pids[0]
    peers[0].send(b'{"function":"nap","args":[30]}\n')
    kill(victim)
    with pytest.raises((EOFError, ConnectionError)):
        peers[0].line()
    for peer, pid in zip(peers, pids, strict=True):
        if pid != victim:
            assert peer.bare("pid") == pid
        peer.socket.close()
    wait_until(lambda: "SIGKILL" in worker.text, what=worker.text)

    def replaced() -> bool:
        with worker.peer() as one, worker.peer() as two:
            return len({one.bare("pid"), two.bare("pid")} - {victim}) == 2

    wait_until(replaced, 5)
    assert os.getpid() not in pids
