"""The ready queue: which connection is served when, and by how many greenlets.

The connections are real ones, read in one go; time passes as their tasks say so.
"""

from __future__ import annotations

import pytest
from gevent.event import Event
from greenlet import getcurrent

from gtask.server import dispatch, ready
from gtask.server.ready import SERVE_SECONDS

from ...support.loop import Clock
from ...support.served import Served, rpc, until


class World:
    """A service, peers of it, and who was served in which greenlet."""

    def __init__(self, monkeypatch):
        self.clock = Clock()
        monkeypatch.setattr(ready, "monotonic", self.clock)
        monkeypatch.setattr(dispatch, "monotonic", self.clock)
        self.order = []
        self.greenlets = []
        self.go = Event()
        self.served = Served(self.work, self.block, task_timeout=0.0)

    def work(self, name, seconds=0.0):
        self.order.append(name)
        self.greenlets.append(id(getcurrent()))
        self.clock.now += seconds

    def block(self, name, seconds=0.0):
        self.work(name, seconds)
        self.go.wait()

    def call(self, name, function="work", *args):
        peer = self.served.connect()
        peer.rpc(name, function, name, *args)
        return peer

    def poll(self):
        """What the loop does when bytes have come; returns who has been served."""
        return self.served.in_hub(lambda: self.served.service._poller.poll() or list(self.order))


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    yield world
    world.go.set()
    until(lambda: not world.served.engine.turns.running)
    world.served.__exit__()


def test_one_greenlet_serves_all_that_do_not_block_in_order(world):
    for name in "abc":
        world.call(name)
    assert world.poll() == ["a", "b", "c"]
    assert len(set(world.greenlets)) == 1
    world.call("d")
    assert world.poll() == ["a", "b", "c", "d"]
    assert len(set(world.greenlets)) == 1, "it was parked in between"


def test_what_is_behind_one_that_blocks_is_served_by_the_next_greenlet(world):
    world.call("a")
    blocked = world.call("b", "block")
    world.call("c")
    assert world.poll() == ["a", "b", "c"]
    first, second, third = world.greenlets
    assert first == second != third
    world.go.set()
    assert blocked.line()["id"] == "b"
    world.call("d")
    assert world.poll() == ["a", "b", "c", "d"]
    assert world.greenlets[3] in (first, third)


def test_after_some_time_the_loop_looks_at_all_else_and_order_is_kept(world):
    for name in "abcd":
        world.call(name, "work", SERVE_SECONDS * 0.6)
    assert world.poll() == ["a", "b", "c"], "the one that is under way is not cut off"
    world.call("e")
    until(lambda: world.order == ["a", "b", "c", "d", "e"])


def test_one_that_blocks_does_not_lengthen_the_time(world):
    for name in "abc":
        world.call(name, "block", SERVE_SECONDS * 0.6)
    assert world.poll() == ["a", "b"]
    until(lambda: world.order == ["a", "b", "c"])


def test_a_greenlet_that_was_cut_off_by_a_bug_leaves_nothing_corked(world, caplog):
    world.served.engine.tasks["broken"] = object()
    peer = world.served.connect()
    peer.send(rpc(1, "work", "a"), rpc(2, "broken"), rpc(3, "work", "b"))
    assert [reply["id"] for reply in peer.lines(2)] == [1, 3]
    assert "was cut off" in caplog.text
    peer.rpc(4, "gtask.ping")
    assert peer.line()["result"] == "pong"


def test_the_board_is_told_that_the_loop_has_the_cpu_again(world):
    peer = world.call("a")
    peer.line()
    stats = world.served.stats
    assert stats.number == stats.executing[0] == 0
    assert stats.done == 1


def test_closed_it_serves_nothing_more(world):
    for name in "abcd":
        world.call(name, "work", SERVE_SECONDS * 0.6)

    def poll_and_abort():
        world.served.service._poller.poll()
        world.served.service.abort()

    world.served.in_hub(poll_and_abort)
    assert world.order == ["a", "b", "c"]
    world.served.in_hub(lambda: None)
    assert world.order == ["a", "b", "c"]
