"""Calls that wait for their turn: what they hold, and that they give it back with their answer."""

from __future__ import annotations

import gc

import gevent
import pytest
from gevent.event import Event

from gtask.errors import CANCELLED, TIMED_OUT
from gtask.protocols.messages import Call
from gtask.server import turns

from ...support.served import Served, let_loop_turn, result, rpc, until


@pytest.fixture
def gate():
    return Event()


@pytest.fixture
def served(gate):
    def hold():
        gate.wait()

    def length(text):
        return len(text)

    with Served(hold, length, concurrency=1) as served:
        yield served
        gate.set()


def with_timeout(id, seconds, *args):
    params = {"function": "length", "args": list(args), "options": {"timeout": seconds}}
    return rpc(id, "gtask.call") | {"params": params}


def calls_of(function):
    gc.collect()
    return [o for o in gc.get_objects() if isinstance(o, Call) and o.function == function]


@pytest.mark.parametrize("how", ["time", "cancel"])
def test_an_answered_call_gives_its_place_and_its_arguments_back(served, how):
    peer = served.connect()
    peer.rpc("holder", "hold")
    for id in range(20):
        peer.send(with_timeout(id, 0.05 if how == "time" else 60, "x" * 1000))
    until(lambda: len(served.engine.turns.waiting) == 20)
    if how == "cancel":
        for id in range(20):
            peer.send(rpc(f"c{id}", "gtask.cancel") | {"params": {"id": id}})
    codes = [
        reply["error"]["code"]
        for reply in peer.lines(40 if how == "cancel" else 20)
        if "error" in reply
    ]
    assert codes == [CANCELLED if how == "cancel" else TIMED_OUT] * 20
    assert not served.engine.turns.waiting
    assert not calls_of("length")


def test_only_who_waits_counts_as_waiting(served, monkeypatch):
    monkeypatch.setattr(turns, "MAX_WAITING", 10)
    peer = served.connect()
    peer.rpc("holder", "hold")
    for _ in range(5):
        for id in range(10):
            peer.send(with_timeout(id, 0.02, "x"))
        assert {reply["error"]["code"] for reply in peer.lines(10)} == {TIMED_OUT}


def test_those_behind_an_answered_call_get_their_turn(served, gate):
    peer = served.connect()
    peer.rpc("holder", "hold")
    peer.send(with_timeout(1, 0.01, "x"))
    peer.rpc(2, "length", "xx")
    assert peer.line()["error"]["code"] == TIMED_OUT
    gate.set()
    assert {str(reply["id"]): reply for reply in peer.lines(2)}["2"] == result(2, 2)


def test_a_greenlet_without_work_keeps_nothing_of_what_a_peer_has_sent(served):
    peer = served.connect()
    peer.bare("length", "x" * 1000)
    assert peer.line() == 1000
    let_loop_turn()
    gevent.sleep(0)
    assert not calls_of("length")
    assert [greenlet.args for greenlet in served.engine.ready._parked] == [None]
