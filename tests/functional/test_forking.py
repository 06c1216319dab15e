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
