"""Who may say what: a mold on its channel, a worker of itself."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gtask.master.actions import Action, Signal, Spawn, TakeOver
from gtask.master.change import Change
from gtask.master.complaints import Complaints
from gtask.master.hearing import Hearing
from gtask.master.molds import Letter
from gtask.master.plans import Plan
from gtask.master.roster import Roster
from gtask.master.slots import Phase


class Mold:
    """What is heard of one: what the test lets it and its workers say."""

    def __init__(self, number: int, pid: int) -> None:
        self.number = number
        self.pid = pid
        self.functions: dict = {}
        self.said: list[bytes] = []
        self.written: list[Letter] = []

    def messages(self) -> list[bytes]:
        said, self.said = self.said, []
        return said

    def letters(self) -> list[Letter]:
        written, self.written = self.written, []
        return written

    def say(self, **message: Any) -> None:
        self.said.append(json.dumps(message).encode())

    def write(self, sender: int, **message: Any) -> None:
        self.written.append(Letter(json.dumps(message).encode(), sender, 1000))


class World:
    """A master that hears; its workers are processes that wait to be killed."""

    def __init__(self) -> None:
        self.now = 100.0
        self.roster, self.change = Roster(10), Change()
        self.molds = {1: Mold(1, 999_999)}
        self.mold = self.molds[1]
        self.parts: list[Any] = []
        operators = SimpleNamespace(add_connections=lambda part, now: self.parts.append(part))
        self.hearing = Hearing(self.molds, self.roster, self.change, operators, Complaints())
        self.change.begun(1, self.now, 60.0)
        self.roster.loaded(1, {"T": Plan(2)})
        self.done: list[Action] = list(self.roster.decide(self.now))
        self.pids: list[int] = []

    def hear(self, dead: set[int] = frozenset()) -> None:
        messages, letters = self.hearing.read()
        for heard in messages:
            self.done += self.hearing.take(heard, self.now)
        self.hearing.welcome(dead, self.now)
        for heard in letters:
            self.done += self.hearing.take(heard, self.now)
        self.done += self.roster.decide(self.now)

    def fork(self) -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        self.pids.append(pid)
        return pid

    def spawn(self, row: int) -> int:
        pid = self.fork()
        self.mold.say(event="spawned", service="T", row=row, pid=pid)
        self.hear()
        return pid

    def phases(self) -> list[Phase]:
        return [each.phase for each in self.roster.processes]

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def dropped(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]


def test_what_a_mold_has_loaded(world: World):
    world.mold.say(event="loaded", functions={"T": ["add"]})
    world.hear()
    assert TakeOver(1) in world.done
    assert world.mold.functions == {"T": ["add"]}


def test_a_worker_is_spawned_and_ready(world: World):
    pid = world.spawn(0)
    assert world.roster.find(pid).row == 0
    world.mold.write(pid, event="ready", pid=pid, row=0)
    world.hear()
    assert world.phases() == [Phase.READY, Phase.BOOTING]


def test_what_a_worker_says_comes_after_what_its_mold_said_of_it(world: World):
    pid = world.fork()
    world.mold.write(pid, event="ready", pid=pid, row=1)
    world.mold.say(event="spawned", service="T", row=1, pid=pid)
    world.hear()
    assert world.phases() == [Phase.BOOTING, Phase.READY]


def test_the_number_of_a_stranger_is_not_believed(world: World, caplog):
    """It may become a child of ours, as long as the mold has not told of all."""
    world.mold.say(event="spawned", service="T", row=0, pid=os.getppid())
    world.hear()
    assert world.roster.find(os.getppid()) is None
    assert world.hearing.wake_at(world.now) == pytest.approx(world.now + 0.01)
    world.now += 31
    world.hear()
    assert not any(isinstance(each, Signal) for each in world.done)
    assert world.roster.restarts == {("T", "could not boot"): 1}
    assert any("has not become a child" in str(each) for each in world.done)


def test_a_worker_that_has_died_on_its_way_was_one(world: World):
    pid = 4_000_000
    world.mold.say(event="spawned", service="T", row=0, pid=pid)
    world.hear(dead={pid})
    assert world.roster.find(pid) is not None


def test_one_that_was_given_up_is_killed(world: World):
    world.spawn(0)
    pid = world.spawn(0)
    assert Signal(pid, signal.SIGKILL) in world.done


def test_a_mold_cannot_have_its_master_kill_another_mold_or_worker(world: World, caplog):
    first = world.spawn(0)
    world.mold.pid = world.fork()
    for pid in (first, world.mold.pid):
        world.mold.say(event="spawned", service="T", row=1, pid=pid)
        world.mold.say(event="spawned", service="T", row=200, pid=pid)
    world.hear()
    assert not any(isinstance(each, Signal) for each in world.done)
    assert len(dropped(caplog)) == 4


@pytest.mark.parametrize(
    "message",
    [
        {"event": "spawned", "service": "T", "row": 200, "pid": 1},
        {"event": "loaded", "functions": {}},
        {"event": "failed", "problems": ["x"], "code": 1},
        {"event": "ready"},
        {"event": "ready", "pid": 1, "row": 0},
        {"event": "recycle", "pid": "?", "row": 0, "reason": "x"},
        {"event": "connections", "connections": 1},
    ],
)
def test_a_worker_speaks_for_itself_alone(world: World, caplog, message: dict):
    pid = world.spawn(0)
    before = list(world.done)
    world.mold.write(pid, **message)
    world.hear()
    assert world.done == before
    assert world.phases() == [Phase.BOOTING, Phase.BOOTING]
    (line,) = dropped(caplog)
    assert f"a message of process {pid} of user 1000 is dropped" in line


def test_one_worker_cannot_pass_for_its_sibling(world: World, caplog):
    first, second = world.spawn(0), world.spawn(1)
    world.mold.write(first, event="ready", pid=second, row=1)
    world.mold.write(first, event="ready", pid=first, row=1)
    world.hear()
    assert world.phases() == [Phase.BOOTING, Phase.BOOTING]
    assert all("it speaks for another" in line for line in dropped(caplog))


def test_a_process_that_a_task_has_forked_says_nothing(world: World, caplog):
    pid = world.spawn(0)
    world.mold.write(world.fork(), event="ready", pid=pid, row=0)
    world.hear()
    assert world.phases() == [Phase.BOOTING, Phase.BOOTING]
    assert "it is no worker of this generation" in dropped(caplog)[0]


def test_what_else_workers_say(world: World):
    pid = world.spawn(0)
    world.mold.write(pid, event="ready", pid=pid, row=0)
    world.mold.write(pid, event="recycle", pid=pid, row=0, reason="max_tasks: 1")
    world.mold.write(
        pid, event="connections", pid=pid, row=0, connections=[], first=True, last=True
    )
    world.hear()
    assert [part.pid for part in world.parts] == [pid]
    assert [each.worker_id for each in world.done if isinstance(each, Spawn)] == [0, 1, 0]


def test_nonsense_does_not_fill_the_log(world: World, caplog):
    pid = world.spawn(0)
    for number in range(1000):
        world.mold.written.append(Letter(b"\x1b\n" * number, pid, 1000))
    world.hear()
    lines = dropped(caplog)
    assert len(lines) == 10
    assert all(line.isprintable() and len(line) < 500 for line in lines)
