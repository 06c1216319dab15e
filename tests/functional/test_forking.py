"""User code that forks a child: the worker goes on serving, and the child is none."""

from __future__ import annotations

import json
import time

import pytest

FORK = """
import multiprocessing, os, time
from gtask import task

def fork():
    # time.sleep is gevent's: the child runs the loop.
    multiprocessing.get_context("fork").Process(target=time.sleep, args=(1.0,)).start()
"""
MODULES = {
    "tasks": FORK
    + """
@task
def call(what):
    if what == "fork":
        fork()
    return os.getpid()
""",
    "handler": FORK
    + """
def on_message(connection, data):
    if '"fork"' in data:
        fork()
    connection.send(str(os.getpid()))
""",
}


def ask(peer, what: str) -> int:
    peer.send(json.dumps({"function": "call", "args": {"what": what}}).encode() + b"\n")
    return peer.json()


@pytest.mark.parametrize("kind", MODULES)
def test_a_child_takes_neither_connections_nor_calls(spawn, kind):
    ini = f"[worker:Tasks]\nlisten = text://127.0.0.1:0\n{kind} = forking\n"
    worker = spawn(ini, forking=MODULES[kind])
    with worker.peer() as first:
        pid = ask(first, "pid")
        peers = [worker.peer() for _ in range(20)]
        assert {ask(peer, "pid") for peer in peers} == {pid}
        assert ask(first, "fork") == pid
        for _ in range(12):
            for peer in peers:
                assert ask(peer, "pid") == pid
            with worker.peer() as new:
                assert ask(new, "pid") == pid
            time.sleep(0.1)
        for peer in peers:
            peer.socket.close()


RETURNS = """
import os, sys, time
from gtask import task

def fork(how):
    pid = os.fork()
    if pid == 0:
        if how == "exit":
            sys.exit(3)
        if how == "raise":
            raise ValueError("in the child")
        if how == "stay":
            time.sleep(1.5)
        return "child"
    return pid

@task(name="green")
def green(how="return"):
    return fork(how)

@task(name="blocking", blocking=True)
def blocking(how="return"):
    return fork(how)

@task
def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

@task
def pid():
    return os.getpid()

@task
def nap(path, seconds):
    time.sleep(seconds)
    with open(path, "a") as file:
        file.write("once\\n")
"""


@pytest.mark.parametrize("function", ["green", "blocking"])
@pytest.mark.parametrize(("how", "code"), [("return", 0), ("exit", 3), ("raise", 1)])
def test_a_child_that_goes_on_as_the_task_does_not_answer(spawn, tmp_path, function, how, code):
    ini = (
        "[gtask]\ncontrol = c.sock\n[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = forking\n"
    )
    worker = spawn(ini, forking=RETURNS)
    worker.expects_traceback = True  # the child's
    with worker.peer() as peer, worker.peer() as other:
        other.send(b'{"function":"nap","args":["%b",0.5]}\n' % str(tmp_path / "naps").encode())
        # What is behind it must not run in the child either.
        call = {"function": function, "args": {"how": how}}
        peer.send(json.dumps(call).encode() + b"\n" + b'{"function":"pid"}\n' * 3)
        child, *pids = (peer.json() for _ in range(4))
        assert type(child) is int
        assert set(pids) == {pids[0]}
        assert child != pids[0]
        assert peer.bare("wait", child) == code
        assert other.json() is None
        (process,) = worker.status()["services"][0]["processes"]
        assert (process["pid"], process["done"]) == (pids[0], 6)
    assert (tmp_path / "naps").read_text() == "once\n"
    assert "has failed" not in worker.text


def test_a_child_holds_no_connection_open(spawn):
    ini = "[worker:Tasks]\nlisten = text://127.0.0.1:0\nidle_timeout = 0.1\ntasks = forking\n"
    worker = spawn(ini, forking=RETURNS)
    with worker.peer() as peer, worker.peer() as idle:
        assert idle.bare("pid")
        began = time.monotonic()
        child = peer.bare("green", "stay")
        assert idle.is_closed()
        assert time.monotonic() - began < 1.4
        with worker.peer() as last:
            assert last.bare("wait", child) == 0


WEB = """
import os, time
def on_message(connection, data):
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
    connection.send("child" if pid == 0 else "parent")

def application(environ, start_response):
    pid = os.fork()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"child" if pid == 0 else b"parent"]

def on_worker_start(worker):
    if os.fork() == 0:
        worker.name = "a child"
"""


def test_nor_does_one_of_a_callback(spawn):
    worker = spawn("[worker:Tasks]\nlisten = text://127.0.0.1:0\nhandler = web\n", web=WEB)
    with worker.peer() as peer:
        peer.send(b"x\n" * 3)
        assert [peer.line() for _ in range(3)] == [b"parent"] * 3
        time.sleep(0.4)
        peer.send(b"x\n")
        assert peer.line() == b"parent"
    assert "a child" not in worker.text


def test_nor_does_one_of_a_web_application(spawn):
    worker = spawn("[worker:Tasks]\nlisten = websocket://127.0.0.1:0\nhandler = web\n", web=WEB)
    with worker.peer() as peer:
        peer.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = peer.rest()
    assert answer.count(b"HTTP/1.1 200") == 1
    assert answer.endswith(b"parent")
