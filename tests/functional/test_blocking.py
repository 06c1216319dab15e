"""Tasks marked `blocking`: each runs in a native thread, and the loop goes on meanwhile."""

from __future__ import annotations

import time

import pytest

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = slow
"""
MODULE = """
from gevent import monkey
from gtask import current_task, task

sleep = monkey.get_original("time", "sleep")

@task(blocking=True)
def nap(seconds, result="slept"):
    sleep(seconds)
    return result

@task(blocking=True)
def nothing():
    return None

@task(blocking=True, timeout=0.3)
def long():
    sleep(1.5)

@task(blocking=True)
def told():
    current_task().progress(1, 2, "half")
    return current_task().id

@task
def echo(value):
    return value
"""


@pytest.fixture(scope="module")
def shared(module_spawn):
    return module_spawn(INI, slow=MODULE)


@pytest.fixture
def worker(shared):
    with shared.unharmed() as worker:
        yield worker


@pytest.mark.parametrize(
    "args",
    [[0], [0, "slept"], {"seconds": 0}, {"seconds": 0, "result": "slept"}, {"result": "slept", "seconds": 0}],
)  # fmt: skip
def test_arguments_by_position_and_by_name(worker, args):
    with worker.peer() as peer:
        assert peer.ask({"function": "nap", "args": args}) == "slept"
        assert peer.rpc("nap", args)["result"] == "slept"


@pytest.mark.parametrize("args", [[], {}])
def test_no_arguments(worker, args):
    with worker.peer() as peer:
        assert peer.ask({"function": "nothing", "args": args}) is None
        assert peer.rpc("nothing", args)["result"] is None


def test_others_run_meanwhile(worker):
    with worker.peer() as peer, worker.peer() as other:
        peer.send(b'{"function":"nap","args":{"seconds":1}}\n')
        began = time.monotonic()
        assert other.bare("echo", 1) == 1
        assert time.monotonic() - began < 0.9
        assert peer.json() == "slept"


def test_a_time_limit_answers_the_caller(worker):
    with worker.peer() as peer:
        began = time.monotonic()
        assert "timed out" in peer.rpc("long", {})["error"]["message"]
        assert time.monotonic() - began < 1.4


def test_what_it_knows_and_tells(worker):
    call = (
        b'{"jsonrpc":"2.0","method":"gtask.call","id":"x",'
        b'"params":{"function":"told","args":{},"options":{"progress":true}}}\n'
    )
    with worker.peer() as peer:
        peer.send(call)
        assert peer.json()["params"] == {"id": "x", "done": 1, "total": 2, "note": "half"}
        assert peer.json()["result"] == "x"
