"""PHP at the other end: plain sockets as Workerman uses them, and Workerman itself."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until

PHP = Path(__file__).parent / "php"
MODULE = """
from gtask import task

@task
def send_mail(from_, to, contents):
    return {"from": from_, "length": len(contents.encode()), "contents": contents}
"""
INI = "[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = mails\ncount = 3\n"

CALLER = """
import json, sys, gevent
from gtask import AsyncTcpConnection

url, tasks = sys.argv[1], int(sys.argv[2])
right, done = [], []

def call(number):
    args = {"from": f"a{number}", "to": "b", "contents": "한\\n😀/" * (number % 100 * 200)}
    connection = AsyncTcpConnection(url)
    connection.send(json.dumps({"function": "send_mail", "args": args}))

    def on_message(connection, data):
        if json.loads(data) == {"did": "send_mail", "args": args}:
            right.append(number)
        connection.close()

    connection.on_message = on_message
    connection.on_close = lambda connection: done.append(number)
    connection.connect()

for number in range(tasks):
    call(number)
    while number - len(done) > 20:
        gevent.sleep(0.001)
with gevent.Timeout(60):
    while len(done) < tasks:
        gevent.sleep(0.01)
print(len(right))
"""


def php(*words: str, **options) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["php", *words], capture_output=True, text=True, timeout=120 * SLOWNESS, **options
        )
    except FileNotFoundError:
        pytest.fail("php is missing: apt-get install php-cli")


def call_from_python(url: str, tasks: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", CALLER, url, str(tasks)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120 * SLOWNESS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("mode", ["kept", "each"])
def test_a_php_caller_gets_every_reply_right(spawn, mode):
    worker = spawn(INI, mails=MODULE)
    done = php(str(PHP / "caller.php"), ":".join(map(str, worker.address())), "1000", mode)
    assert done.stdout == "1000\n", done.stdout + done.stderr


def test_a_php_text_server_answers_our_caller():
    try:
        server = subprocess.Popen(
            ["php", str(PHP / "server.php")], stdout=subprocess.PIPE, text=True
        )
    except FileNotFoundError:
        pytest.fail("php is missing: apt-get install php-cli")
    try:
        assert call_from_python(f"Text://{server.stdout.readline().strip()}", 300) == 300
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.fixture
def workerman() -> dict[str, str]:
    folder = os.environ.get("WORKERMAN_DIR", "")
    assert Path(folder, "src/Worker.php").is_file(), "WORKERMAN_DIR is no checkout of Workerman"
    return dict(os.environ)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.workerman
def test_an_unchanged_workerman_caller_gets_every_reply_right(spawn, workerman):
    worker = spawn(INI, mails=MODULE)
    port = str(worker.address()[1])
    done = php(str(PHP / "workerman.php"), "caller", port, "1000", env=workerman)
    assert re.search(r"right: (\d+)", done.stdout)[1] == "1000", done.stdout + done.stderr


@pytest.mark.workerman
def test_an_unchanged_workerman_worker_answers_our_caller(workerman):
    port = free_port()
    server = subprocess.Popen(
        ["php", str(PHP / "workerman.php"), "worker", str(port)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_until(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        assert call_from_python(f"Text://127.0.0.1:{port}", 1000) == 1000
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_netcat_gets_an_answer(spawn):
    worker = spawn(INI, mails=MODULE)
    host, port = worker.address()
    task = {"function": "send_mail", "args": {"from": "a", "to": "b", "contents": "안녕"}}
    try:
        done = subprocess.run(
            ["nc", "-N", host, str(port)],
            input=json.dumps(task) + "\n",
            capture_output=True,
            text=True,
            timeout=10 * SLOWNESS,
            check=True,
        )
    except FileNotFoundError:
        pytest.fail("nc is missing: apt-get install netcat-openbsd")
    assert json.loads(done.stdout) == {"from": "a", "length": 6, "contents": "안녕"}
