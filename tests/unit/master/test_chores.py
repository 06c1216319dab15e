from __future__ import annotations

import math

import pytest

from gtask import scoreboard as board
from gtask.master.chores import Chores
from gtask.master.plans import Plan
from gtask.master.roster import Roster
from gtask.master.status import Status
from gtask.scoreboard import Scoreboard


class OneMold:
    """What `Status` needs of a mold."""

    def __init__(self) -> None:
        self.scoreboards = {"T": Scoreboard(8)}


class Manager:
    """A service manager that only listens."""

    def __init__(self, watchdog_seconds: float) -> None:
        self.watchdog_seconds = watchdog_seconds
        self.heard: list[str] = []

    def watchdog(self) -> None:
        self.heard.append("alive")

    def status(self, text: str) -> None:
        self.heard.append(text)


class World:
    """One ready worker, looked at by `Chores`."""

    def __init__(self, watchdog_seconds: float = math.inf) -> None:
        self.now = 100.0
        self.roster, mold = Roster(10), OneMold()
        self.roster.loaded(1, {"T": Plan(1)})
        self.roster.decide(self.now)
        self.roster.spawned(1, "T", 0, 4_000_000, self.now)  # an id that no process has
        self.roster.ready(4_000_000, self.now)
        self.floats = mold.scoreboards["T"].floats
        self.floats[board.HEARTBEAT] = self.now
        self.manager = Manager(watchdog_seconds)
        self.chores = Chores(self.roster, Status(self.roster, {1: mold}), self.manager)

    def do(self, seconds: float = 0.0, is_serving: bool = True, is_changing: bool = False):
        """Let time pass, and then do what is due; returns what the manager hears."""
        self.now += seconds
        self.manager.heard.clear()
        self.chores.do(self.now, is_serving=is_serving, is_changing=is_changing)
        return list(self.manager.heard)


def test_nothing_is_done_before_it_is_due():
    world = World()
    world.do()
    assert world.chores.wake_at == 100.25
    world.floats[board.HEARTBEAT] = 150.0
    world.do(0.2)
    assert world.roster.processes[0].last_sign == 101.0
    world.do(0.1)
    assert world.roster.processes[0].last_sign == 151.0


def test_the_status_line_comes_every_five_seconds_but_for_changes():
    world, line = World(), "1 workers, 0 connections, 0 tasks running"
    assert line in world.do()
    assert line not in world.do(4.9)
    assert line not in world.do(0.3, is_changing=True)
    assert line in world.do(0.3)


def test_the_watchdog_is_fed_in_half_its_time():
    world = World(watchdog_seconds=2.0)
    assert "alive" in world.do()
    assert "alive" not in world.do(0.9)
    assert "alive" in world.do(0.3)


@pytest.mark.parametrize("watchdog_seconds", [2.0, 20.0])
def test_the_watchdog_is_not_fed_for_a_service_whose_workers_are_all_stuck(watchdog_seconds: float):
    """They may be for five seconds, or for half the watchdog's time, after their last sign."""
    world = World(watchdog_seconds)
    limit = max(5.0, watchdog_seconds / 2)
    world.do()
    assert "alive" in world.do(limit + 0.9)
    assert "alive" not in world.do(watchdog_seconds)
    assert "alive" in world.do(1.0, is_serving=False), "nothing is demanded of a start or stop"
    world.floats[board.HEARTBEAT] = world.now + watchdog_seconds
    assert "alive" in world.do(watchdog_seconds)
