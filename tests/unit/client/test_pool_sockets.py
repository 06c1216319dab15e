"""The pool with real sockets: what is repeated, refused, shared and closed.

test_pool.py has what becomes of calls as histories.
"""

from __future__ import annotations

import time

import pytest

from gtask.client import wait
from gtask.errors import Draining, InternalError, Overloaded, TaskCancelled, WorkerLost

from .peers import Outcome, echo, hang_up, pool_of, wait_for


def test_retries_repeat_what_was_lost(peer, connect):
    seen = []

    def third_time_lucky(line):
        seen.append(line.id)
        echo(line) if len(seen) == 3 else hang_up(line)

    client = connect(peer(third_time_lucky))
    with pytest.raises(WorkerLost):
        client.call("f", [1]).get(timeout=5)
    assert client.call("f", [2], retries=2).get(timeout=5) == [2]


def test_retries_are_used_up(peer, connect):
    server = peer(lambda line: line.error(-32000, "full", {"retry_after": 0.05}))
    started = time.monotonic()
    with pytest.raises(Overloaded, match="full"):
        connect(server).call("f", retries=2).get(timeout=5)
    assert len(server.lines) == 3
    assert time.monotonic() - started >= 0.1


def test_errors_of_the_task_are_not_repeated(peer, connect):
    server = peer(lambda line: line.error(-32603, "not JSON"))
    with pytest.raises(InternalError):
        connect(server, retries=5).call("f").get(timeout=5)
    assert len(server.lines) == 1


def test_what_a_draining_server_did_not_start_is_made_elsewhere(peer, connect, monkeypatch):
    monkeypatch.setattr("gtask.client.pool.FIRST_DELAY", 0.002)
    monkeypatch.setattr("gtask.client.endpoint.FIRST_PAUSE", 0.002)
    draining = peer(lambda line: line.error(-32003, "the server is shutting down"))
    good = peer()
    client = connect(draining, good)
    calls = [client.call("f", [number]) for number in range(20)]
    assert [call.get(timeout=5) for call in calls] == [[number] for number in range(20)]
    with pytest.raises(Draining):
        connect(draining).call("f", timeout=60).get(timeout=60)
    assert len(draining.lines) < 60


def test_too_many_pending_calls_are_refused(peer, connect):
    client = connect(peer(lambda line: None), max_pending=3)
    calls = [client.call("f") for _ in range(3)]
    with pytest.raises(Overloaded, match="3 calls are pending"):
        client.call("f").get()
    calls[0].cancel()
    assert not client.call("f").done


def test_close_ends_everything(peer, connect):
    server = peer(lambda line: None)
    client = connect(server)
    outcomes = [Outcome() for _ in range(10)]
    calls = [client.call("f", **outcome.callbacks()) for outcome in outcomes]
    wait_for(lambda: len(server.lines) == 10)
    client.close()
    client.close()
    wait_for(lambda: all(outcome.ends for outcome in outcomes))
    assert all(isinstance(call.error, TaskCancelled) for call in calls)
    assert [outcome.ends for outcome in outcomes] == [1] * 10
    wait_for(lambda: len(server.lines) == 20)
    assert {line.message["params"]["id"] for line in server.lines[10:]} == {c.id for c in calls}
    assert pool_of(client).connections == []


def test_a_callback_may_close_the_client(peer, connect):
    client = connect(peer())
    calls = [client.call("f", [number], on_result=lambda _: client.close()) for number in range(9)]
    wait(calls, timeout=5)
    assert calls[0].get() == [0]
    assert all(call.done for call in calls)


def test_the_first_burst_is_shared_by_the_connections(peer, connect):
    server = peer(lambda line: None)
    client = connect(server, connections=4)
    for _ in range(12):
        client.call("f")
    wait_for(lambda: len(server.lines) == 12)
    counts = [sum(line.socket is s for line in server.lines) for s in server.sockets]
    assert sorted(counts) == [3, 3, 3, 3]
