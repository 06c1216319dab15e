"""The ready queue: which connection is served when, and by how many greenlets; on a fake clock."""

from __future__ import annotations

import os

import pytest

from gtask.scoreboard import Scoreboard
from gtask.server import ready as module
from gtask.server.ready import SERVE_SECONDS, ReadyQueue
from gtask.server.stats import WorkerStats

from ...support.loop import in_hub


class Connection:
    """Does its work in `seconds`; notes when and in which greenlet that was.

    Args:
        blocks: its task blocks, and goes on when `greenlet.switch()` says so.
    """

    def __init__(self, world, name, *, seconds=0.0, blocks=False, breaks=None):
        self.world = world
        self.name = name
        self.seconds = seconds
        self.blocks = blocks
        self.breaks = breaks
        self.corked_since = self.last_active = 0.0
        self.gone_on = 0
        self.greenlet = None

    def work(self, greenlet):
        greenlet.connection = self
        self.greenlet = greenlet
        self.last_active = self.corked_since = self.world.clock.now
        self.world.served.append(self.name)
        self.world.clock.now += self.seconds
        if self.breaks:
            raise self.breaks
        if self.blocks:
            self.world.hub.switch()
            return False
        self.end_work()
        return True

    def go_on_without(self, greenlet):
        assert greenlet is self.greenlet
        self.gone_on += 1
        self.end_work()

    def end_work(self):
        self.corked_since = 0.0


class World:
    def __init__(self, hub, monkeypatch):
        self.hub = hub
        self.clock = hub.loop.clock
        monkeypatch.setattr(module, "monotonic", self.clock)
        self.stats = WorkerStats(Scoreboard(1))
        self.stats.boot(0, os.getpid())
        self.ready = ReadyQueue(hub, 60.0, self.stats)
        self.served = []

    def put(self, *names, **options):
        made = [Connection(self, name, **options) for name in names]
        for connection in made:
            self.ready.put(connection)
        return made


@pytest.fixture
def run(monkeypatch):
    """Run a history in a hub."""
    return lambda history: in_hub(lambda hub: history(World(hub, monkeypatch)))()


def test_one_greenlet_serves_all_that_do_not_block_in_order(run):
    @run
    def history(world):
        made = world.put(1, 2, 3)
        world.ready.work_off()
        assert world.served == [1, 2, 3]
        assert len({id(each.greenlet) for each in made}) == 1
        assert made[0].greenlet.is_parked
        assert not world.hub.loop.timers


def test_what_is_behind_one_that_blocks_is_served_by_the_next_greenlet(run):
    @run
    def history(world):
        (first,) = world.put(1)
        (blocked,) = world.put(2, blocks=True)
        (last,) = world.put(3)
        world.ready.work_off()
        assert world.served == [1, 2, 3]
        assert first.greenlet is blocked.greenlet
        assert last.greenlet is not blocked.greenlet
        assert blocked.gone_on == 1
        blocked.greenlet.switch()
        assert blocked.greenlet.is_parked
        world.put(4)
        world.ready.work_off()
        assert world.served == [1, 2, 3, 4]


def test_after_some_time_the_loop_looks_at_all_else_and_order_is_kept(run):
    @run
    def history(world):
        world.put(1, 2, 3, 4, seconds=SERVE_SECONDS * 0.6)
        world.ready.work_off()
        assert world.served == [1, 2, 3], "the one that is under way is not cut off"
        world.put(5)
        world.hub.loop.turn()
        assert world.served == [1, 2, 3, 4, 5]
        world.hub.loop.turn()
        assert world.served == [1, 2, 3, 4, 5]


def test_one_that_blocks_does_not_lengthen_the_time(run):
    @run
    def history(world):
        world.put(1, 2, 3, blocks=True, seconds=SERVE_SECONDS * 0.6)
        world.ready.work_off()
        assert world.served == [1, 2]
        world.hub.loop.turn()
        assert world.served == [1, 2, 3]


def test_what_is_postponed_is_served_when_the_loop_has_turned(run):
    @run
    def history(world):
        world.ready.postpone(Connection(world, 1))
        assert not world.served
        world.hub.loop.turn()
        assert world.served == [1]


def test_a_greenlet_that_was_cut_off_between_two_calls_leaves_nothing_corked(run, caplog):
    @run
    def history(world):
        (broken,) = world.put(1, breaks=RuntimeError("our bug"))
        world.put(2)
        world.ready.work_off()
        assert world.served == [1, 2]
        assert not broken.corked_since

    assert "our bug" in caplog.text


def test_the_board_is_told_that_the_loop_has_the_cpu_again(run):
    @run
    def history(world):
        world.put(1)
        world.stats.done += 3
        world.stats.number = world.stats.executing[0] = 4
        world.ready.work_off()
        assert world.stats.number == world.stats.executing[0] == 0


def test_closed_it_leaves_no_timer(run):
    @run
    def history(world):
        world.ready.close()
        world.ready.postpone(Connection(world, 1))
        world.ready.close()
        assert not world.hub.loop.timers
