"""Many connections that have something at a time are served by one greenlet; that shows nowhere."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import time

import pytest

TASKS = """
import contextvars, time
from gtask import task

seen = contextvars.ContextVar("seen", default=None)

@task
def echo(text):
    before = seen.get()
    seen.set(text)
    return [text, before]

@task
def hold():
    end = time.monotonic() + 0.2
    while time.monotonic() < end:  # does not yield: meanwhile the others' calls arrive
        pass

@task
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

@task
def nap(seconds):
    time.sleep(seconds)
    return seconds
"""
INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
"""
MANY = 160  # more than are read at a time


@pytest.fixture(scope="module")
def worker(module_spawn):
    return module_spawn(INI, tasks=TASKS)


@pytest.fixture
def crowd(worker):
    """So many connections, and a function that has all of them call in one turn of the loop."""
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(worker.peer()) for _ in range(MANY)]
        for peer in peers:
            assert peer.bare("echo", "there") == ["there", None]
        holder = stack.enter_context(worker.peer())

        def call(*calls: tuple[object, ...]) -> list:
            holder.send(b'{"function":"hold","args":{}}\n')
            time.sleep(0.05)
            for peer, one in zip(peers, calls * MANY, strict=False):
                peer.send(b"".join(json.dumps(message).encode() + b"\n" for message in one))
            return peers

        yield call


def task(function: str, *args: object) -> dict[str, object]:
    return {"function": function, "args": list(args)}


def test_each_has_its_own_answers_and_context(crowd):
    peers = crowd((task("echo", "a"), task("echo", "b")), (task("echo", "c"),))
    for number, peer in enumerate(peers):
        for text in "c" if number % 2 else "ab":
            assert peer.json() == [text, None]


def test_one_that_blocks_holds_up_its_own_connection_only(crowd):
    started = time.monotonic()
    peers = crowd((task("nap", 1.5), task("echo", "a")), (task("echo", "b"),), (task("echo", "c"),))
    for peer in [*peers[1::3], *peers[2::3]]:
        assert peer.json()[1] is None
    assert time.monotonic() - started < 1.2
    for peer in peers[::3]:
        assert peer.json() == 1.5
        assert peer.json() == ["a", None]
    assert time.monotonic() - started < 5


def test_the_loop_turns_while_they_are_served(crowd, worker):
    with worker.peer() as other:
        other.send(json.dumps(task("nap", 0.3)).encode() + b"\n")
        peers = crowd((task("spin", 0.02),))
        assert other.json() == 0.3
        served, _, _ = select.select([peer.socket for peer in peers], [], [], 0)
        assert len(served) < 64, "the nap had to wait for all that were read with it"
    for peer in peers:
        assert peer.json() is None


def test_what_is_behind_a_json_rpc_call_that_blocks_goes_on(crowd):
    def call(method: str, id: int, **params: object) -> dict[str, object]:
        return {"jsonrpc": "2.0", "method": method, "params": params, "id": id}

    peers = crowd(
        (call("nap", 1, seconds=0.5), call("echo", 2, text="a"), call("nap", 3, seconds=0.2)),
    )
    for peer in peers:
        assert [peer.json()["id"] for _ in range(3)] == [2, 3, 1]


def test_one_that_ends_its_half_is_answered_and_closed(crowd):
    for peer in (peers := crowd((task("echo", "a"),))):
        peer.socket.shutdown(socket.SHUT_WR)
    for peer in peers:
        assert peer.json() == ["a", None]
        assert peer.is_closed()


def test_one_that_is_reset_disturbs_no_other(crowd):
    peers = crowd((task("echo", "a"),))
    for peer in peers[::2]:
        peer.reset()
    for peer in peers[1::2]:
        assert peer.json() == ["a", None]


@pytest.mark.parametrize("next_call", [task("echo", "b"), task("unknown")])
def test_bare_calls_behind_one_that_waits_for_a_turn_wait_for_it(spawn, next_call):
    worker = spawn(INI + "concurrency = 2\n", tasks=TASKS)
    with worker.peer() as one, worker.peer() as other, worker.peer() as peer:
        assert peer.bare("echo", "there") == ["there", None]
        for holder in (one, other):
            holder.send(json.dumps(task("nap", 0.5)).encode() + b"\n")
        time.sleep(0.1)
        calls = [task("nap", 0.1), next_call, task("echo", "c")]
        peer.send(b"".join(json.dumps(call).encode() + b"\n" for call in calls))
        assert peer.json() == 0.1
        second = peer.json()
        assert second == ["b", None] or second["error"]["code"] == -32601
        assert peer.json() == ["c", None]
        assert one.json() == other.json() == 0.5
