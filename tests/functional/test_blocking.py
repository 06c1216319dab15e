"""Tasks marked `blocking`: each runs in a native thread, and the loop goes on meanwhile."""

from __future__ import annotations

import time

import pytest

from ..support.wait import wait_until

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


STUCK = """
import os, socket
from gevent import monkey
from gtask import task

sleep = monkey.get_original("time", "sleep")

@task(blocking=True, timeout=0.2)
def stuck(seconds=60):
    sleep(seconds)

@task(blocking=True)
def hold(seconds):
    sleep(seconds)

@task(blocking=True, timeout=10)
def quick():
    return os.getpid()

@task(timeout=10)
def lookup():
    return bool(socket.getaddrinfo("localhost", 80))
"""


def in_flight(peer, function: str, calls: int) -> list:
    """The replies to so many calls at once."""
    for id in range(calls):
        peer.send(b'{"jsonrpc":"2.0","method":"%b","id":%d}\n' % (function.encode(), id))
    return [peer.json() for _ in range(calls)]


def test_threads_that_do_not_end_are_counted_and_replaced(spawn):
    ini = "[gtask]\ncontrol = c.sock\n" + INI.replace("slow", "stuck") + "concurrency = 20\n"
    worker = spawn(ini, stuck=STUCK)
    with worker.peer() as peer, worker.peer() as other:
        before = peer.bare("quick")
        assert all(
            "timed out" in reply["error"]["message"] for reply in in_flight(peer, "stuck", 4)
        )
        threads = other.bare("gtask.health")["threads"]
        assert threads == {"size": 20, "running": 4, "stuck": 4}
        (process,) = worker.status()["services"][0]["processes"]
        assert (process["threads"], process["stuck_threads"]) == (4, 4)
        assert "4 threads stuck" in worker.command("status").stdout
        assert other.bare("quick") == before
        in_flight(peer, "stuck", 16)  # none is left, and yet ...
        assert other.bare("lookup") is True

    def is_replaced() -> bool:
        with worker.peer() as peer:
            try:
                return peer.bare("quick") not in (before, None)
            except (EOFError, OSError):
                return False

    began = time.monotonic()
    wait_until(is_replaced, 20, "another process")
    assert time.monotonic() - began < 9, "somebody has waited for a thread in vain"
    wait_until(lambda: "threads of blocking tasks are stuck" in worker.text, 5, "the reason")


def test_a_call_waits_for_a_thread_until_its_own_deadline(spawn):
    worker = spawn(INI.replace("slow", "stuck") + "concurrency = 20\n", stuck=STUCK)
    call = (
        b'{"jsonrpc":"2.0","method":"gtask.call","id":"late","params":'
        b'{"function":"quick","options":{"timeout":0.3}}}\n'
    )
    with worker.peer() as peer, worker.peer() as other:
        for id in range(20):
            peer.send(b'{"jsonrpc":"2.0","method":"hold","params":[3],"id":%d}\n' % id)

        def running() -> int:
            return other.bare("gtask.health")["threads"]["running"]

        wait_until(lambda: running() == 20, 2, "all threads are taken")
        began = time.monotonic()
        other.send(call)
        assert other.json()["error"]["code"] == -32001
        assert 0.2 < time.monotonic() - began < 2


LOCALS = """
import contextvars, threading
from gtask import task
local, variable = threading.local(), contextvars.ContextVar("variable", default=None)

def look(user):
    before = getattr(local, "user", None), variable.get(), getattr(threading.current_thread(), "user", None)
    if user:
        local.user = threading.current_thread().user = user
        variable.set(user)
    return before

@task(name="blocking", blocking=True)
def blocking(user=None):
    return look(user)

@task(name="green")
def green(user=None):
    return look(user)
"""


@pytest.mark.parametrize("function", ["green", "blocking"])
def test_nothing_of_one_call_is_seen_by_the_next(spawn, function):
    worker = spawn(INI.replace("slow", "own"), own=LOCALS)
    with worker.peer() as first, worker.peer() as second:
        for _ in range(30):
            assert first.bare(function, "alice") == [None] * 3
            assert second.bare(function) == [None] * 3
        for _ in range(2):
            first.send(b'{"function":"%b","args":["bob"]}\n' % function.encode() * 20)
            assert [first.json() for _ in range(20)] == [[None] * 3] * 20
