"""The functions that every text service has, in both dialects."""

from __future__ import annotations

import pytest
from gevent.event import Event

from gtask.errors import BAD_ARGUMENTS, CANCELLED, UNKNOWN_FUNCTION

from ...support.served import Served, result, rpc, until


class Held:
    """A task that waits until the test says `go`."""

    def __init__(self):
        self.go = Event()
        self.ended = []

    def hold(self, key=None):
        try:
            self.go.wait()
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        return key


@pytest.fixture
def held():
    return Held()


@pytest.fixture
def served(held):
    with Served(held.hold, lambda_task, concurrency=2) as served:
        yield served
        held.go.set()


def lambda_task():
    return None


def test_ping_and_functions(served):
    peer = served.connect()
    peer.bare("gtask.ping")
    peer.rpc(1, "gtask.ping")
    peer.bare("gtask.functions")
    assert peer.lines(3) == ["pong", result(1, "pong"), ["hold", "lambda_task"]]


def test_health_tells_what_runs_waits_and_drains(served, held):
    peer = served.connect()

    def health():
        peer.rpc("h", "gtask.health")
        return peer.line()["result"]

    threads = {"size": 10, "running": 0, "stuck": 0}
    idle = {"status": "ready", "running": 0, "waiting": 0, "concurrency": 2, "connections": 1}
    idle["threads"] = threads
    assert health() == idle
    for id in range(3):
        peer.rpc(id, "hold")
    assert health() == idle | {"status": "busy", "running": 2, "waiting": 1}
    held.go.set()
    assert sorted(each["id"] for each in peer.lines(3)) == [0, 1, 2]
    served.service.drain()
    assert peer.line()["method"] == "gtask.goaway"
    assert health() == idle | {"status": "draining"}


def test_cancel_ends_a_blocked_call_of_the_same_connection(served, held):
    peer, stranger = served.connect(), served.connect()
    peer.rpc(7, "hold")
    until(lambda: served.engine.turns.running)
    stranger.send({**rpc(1, "gtask.cancel"), "params": {"id": 7}})
    assert stranger.line() == result(1, False)
    peer.send({**rpc(1, "gtask.cancel"), "params": {"id": 7}})
    cancelled, answer = peer.lines(2)
    assert (cancelled["id"], cancelled["error"]["code"]) == (7, CANCELLED)
    assert answer == result(1, True)
    until(lambda: held.ended == ["GreenletExit"])
    assert served.engine.turns.running == 0
    peer.send({**rpc(1, "gtask.cancel"), "params": {"id": 7}})
    assert peer.line() == result(1, False)


def test_cancel_of_a_call_that_waits(served, held):
    peer = served.connect()
    for id in range(3):
        peer.rpc(id, "hold", id)
    until(lambda: len(served.engine.turns.waiting) == 1)
    peer.send({**rpc("c", "gtask.cancel"), "params": {"id": 2}})
    assert [each["id"] for each in peer.lines(2)] == [2, "c"]
    held.go.set()
    assert sorted(each["result"] for each in peer.lines(2)) == [0, 1]
    until(lambda: not served.engine.turns.waiting)
    assert held.ended == []


@pytest.mark.parametrize("params", [[7], {}, {"id": 7, "more": 1}])
def test_cancel_wants_an_id_and_nothing_else(served, params):
    peer = served.connect()
    peer.send({**rpc(1, "gtask.cancel"), "params": params})
    assert peer.line()["error"]["code"] == BAD_ARGUMENTS


@pytest.mark.parametrize("id", [None, 1.5, True, [7], {"a": 1}])
def test_cancel_of_what_is_no_id_finds_nothing(served, id):
    peer = served.connect()
    peer.send({**rpc(1, "gtask.cancel"), "params": {"id": id}})
    assert peer.line() == result(1, False)


def test_what_is_neither_a_task_nor_built_in_is_unknown(served):
    peer = served.connect()
    peer.bare("gtask.nothing")
    assert peer.line()["error"]["code"] == UNKNOWN_FUNCTION
    peer.rpc(1, "x" * 1000)
    error = peer.line()["error"]
    assert error["code"] == UNKNOWN_FUNCTION
    assert len(error["message"]) < 200
