"""Nothing that a task, a worker, an operator or a peer does ends the master."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import time

import pytest

from ..support.spawn import descendants
from ..support.wait import SLOWNESS, wait_until

TASKS = """
import json, os, socket
import _socket
import gevent
from gtask import task

@task
def echo(value):
    return value

@task
def pid():
    return os.getpid()

@task
def nap(seconds):
    gevent.sleep(seconds)
    return os.getpid()

def channels():
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            end = _socket.socket(fileno=os.dup(fd))  # not gevent's, which would wait
        except OSError:
            continue
        if end.type == socket.SOCK_SEQPACKET:
            yield end

@task
def write(text):
    "A slip of a task that writes to descriptors that are not its own."
    for end in channels():
        end.send(text.encode(), socket.MSG_DONTWAIT)

@task
def flood(count):
    for end in channels():
        waits = 0
        for _ in range(count):
            try:
                end.send(b"x" * 1000, socket.MSG_DONTWAIT)
            except BlockingIOError:
                gevent.sleep(0.001)
                waits += 1
                if waits > 1000:
                    break  # nobody reads that one

@task
def shut_down():
    for end in channels():
        end.shutdown(2)
"""

INI = """
[gtask]
control = run.sock
pid_file = run.pid
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = 2
"""


def call(worker, function: str, *args):
    with worker.peer() as peer:
        return peer.bare(function, *args)


def processes(worker) -> list[dict]:
    return worker.status()["services"][0]["processes"]


@pytest.mark.parametrize(
    "message",
    [
        "[]",
        "{",
        "[" * 50_000,
        json.dumps({"event": "ready"}),
        json.dumps({"event": "loaded", "functions": {}}),
        json.dumps({"event": "failed", "problems": ["x"], "code": 78}),
        json.dumps({"event": "connections", "pid": 1, "row": 0, "connections": [7]}),
        json.dumps({"event": "recycle", "pid": None, "row": [], "reason": {}}),
    ],
)
def test_what_a_task_writes_to_the_master_is_dropped(spawn, message: str):
    worker = spawn(INI, tasks=TASKS)
    wait_until(lambda: len(worker.pids()) == 3)
    with worker.unharmed():
        call(worker, "write", message)
        wait_until(lambda: "is dropped" in worker.text)
        assert call(worker, "echo", 1) == 1
        assert worker.status()["state"] == "running"


def test_a_task_cannot_have_the_master_kill_somebody(spawn):
    worker = spawn(INI, tasks=TASKS)
    victim = os.fork()
    if victim == 0:
        signal.pause()
    try:
        sibling = next(each["pid"] for each in processes(worker) if each["id"] == 0)
        with worker.unharmed():
            for pid in (victim, sibling):
                lie = {"event": "spawned", "service": "Tasks", "row": 200, "pid": pid}
                call(worker, "write", json.dumps(lie))
            wait_until(lambda: worker.text.count("is dropped") >= 2)
            assert os.waitpid(victim, os.WNOHANG) == (0, 0)
    finally:
        os.kill(victim, signal.SIGKILL)
        os.waitpid(victim, 0)


def test_a_flood_of_messages_stops_nobody(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as flooding:
        flooding.send(b'{"function": "flood", "args": [20000]}\n')
        assert worker.command("connections").returncode == 0
        assert call(worker, "echo", 1) == 1
        assert flooding.json() is None
    assert worker.text.count("is dropped") <= 10
    assert worker.command("reload").returncode == 0


def test_workers_that_cannot_be_heard_any_more_are_replaced(spawn):
    worker = spawn(INI, tasks=TASKS)
    call(worker, "shut_down")
    wait_until(lambda: worker.status()["generation"] == 2, 15)
    wait_until(lambda: worker.status()["state"] == "running")
    assert "shut the workers' channel down" in worker.text
    assert call(worker, "echo", 1) == 1


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60_000 + b"\n",
        b"\xff\xfe\n",
        b"x" * 200_000,
        b'{"command": ["stop"]}\n',
        b'{"command": "' + b"y" * 60_000 + b'"}\n',
        b"9" * 60_000 + b"\n",
    ],
)
def test_a_line_on_the_control_socket_is_answered_and_no_more(spawn, line: bytes):
    worker = spawn(INI, tasks=TASKS)
    wait_until(lambda: len(worker.pids()) == 3)  # what was in between has been reaped
    with worker.unharmed(), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5 * SLOWNESS)
        client.connect(str(worker.folder / "run.sock"))
        with contextlib.suppress(BrokenPipeError):
            client.sendall(line)
        answer = client.makefile("rb").readline()
        assert json.loads(answer)["ok"] is False
        assert len(answer) < 2000
        assert worker.status()["state"] == "running"


def test_recycled_workers_that_stay_busy_do_not_pile_up(spawn):
    ini = INI.replace("stop_timeout = 5", "stop_timeout = 60") + "max_tasks = 1\n"
    worker = spawn(ini, tasks=TASKS)
    with contextlib.ExitStack() as peers:
        began = time.monotonic()
        most = 0
        while time.monotonic() - began < 8:
            peer = peers.enter_context(worker.peer())
            peer.send(b'{"function": "nap", "args": [100]}\n')
            time.sleep(0.02)
            most = max(most, len(descendants(worker.process.pid)))
        assert most <= 1 + 2 + 2 + 2 + 1, "mold, workers, draining ones, successors, one in between"
        states = [each["state"] for each in processes(worker)]
        assert states.count("draining") == 2
    worker.stop(signal.SIGINT)


def test_thousands_of_connections_are_shown(spawn):
    worker = spawn(INI.replace("count = 2", "count = 1"), tasks=TASKS)
    with contextlib.ExitStack() as peers:
        for _ in range(2500):
            peers.enter_context(socket.create_connection(worker.address()))
        wait_until(lambda: processes(worker)[0]["connections"] == 2500)
        answer = json.loads(worker.command("connections", "--json").stdout)
    assert (len(answer["connections"]), answer["silent"]) == (2500, [])


def memory_mb() -> int:
    with open("/proc/meminfo") as lines:
        return next(int(line.split()[1]) // 1024 for line in lines if "MemAvailable" in line)


@pytest.mark.parametrize("count", [400, 1000])
def test_many_processes_start_reload_and_stop(spawn, count: int):
    if memory_mb() < 8 * count:
        pytest.skip(f"{count} processes take more memory than is free")
    worker = spawn(INI.replace("count = 2", f"count = {count}"), tasks=TASKS, wait=False)
    worker.wait_ready(120)
    assert len(processes(worker)) == count
    assert all(each["state"] == "ready" for each in processes(worker))
    assert worker.command("reload", timeout=120).returncode == 0
    assert call(worker, "echo", 1) == 1
    assert worker.stop(seconds=60) == 0
