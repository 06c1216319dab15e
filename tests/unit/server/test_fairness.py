"""Who accepts: processes that share a listening socket, as histories on a fake clock.

Each process has stats of its own on one scoreboard, a gate over a fake loop, and a `Fairness`. The
kernel is a queue: it gives the first connection to any process whose gate is open and that turns
its loop; which one is drawn, as nothing may depend on that.
"""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import fairness as module
from gtask.server import stats as stats_module
from gtask.server.fairness import MAX_DEFER_SECONDS, Fairness
from gtask.server.gate import Gate
from gtask.server.stats import FRESH_LOAD, WorkerStats

from ...support.loop import Clock, FakeLoop

SLACK = 1e-6  # seconds; sums of floats


class Process:
    """One worker.

    Attributes:
        is_stuck: its loop does not turn.
    """

    def __init__(self, world: World, row: int) -> None:
        self.world = world
        self.is_stuck = False
        self.loop = FakeLoop(world.clock)
        self.stats = WorkerStats(world.board, runs_one_at_a_time=world.is_strict)
        self.stats.boot(row, 4000 + row)
        self.fairness = Fairness(
            self.loop,
            self.stats,
            lambda: self.is_full,
            siblings=world.count,
            is_strict=world.is_strict,
        )
        self.gate = Gate(self.loop, -1)
        self.stats.state(WorkerState.READY)
        self.fairness.start(self.gate)

    @property
    def is_full(self) -> bool:
        return (
            self.stats.running >= self.world.concurrency
            or self.stats.connections >= self.world.max_connections
        )

    @property
    def can_accept(self) -> bool:
        return self.gate.is_open and not self.is_stuck

    def accept(self) -> None:
        self.stats.accepted()
        self.fairness.accepted += 1
        self.fairness.reconsider()

    def close(self) -> None:
        self.stats.closed(0, 0)

    def run(self, tasks: int) -> None:
        self.stats.set_running(tasks)
        if tasks == self.world.concurrency:
            self.fairness.reconsider()  # as `Turns.on_full` does


class World:
    """The processes of a service, its listen queue, and time.

    Attributes:
        waits: seconds that each accepted connection was the first of the queue.
    """

    def __init__(
        self,
        monkeypatch,
        count: int,
        *,
        is_strict: bool = False,
        concurrency: int = 100,
        max_connections: int = 10_000,
        seed: int = 0,
    ) -> None:
        self.clock = Clock()
        monkeypatch.setattr(module, "monotonic", self.clock)
        monkeypatch.setattr(stats_module, "monotonic", self.clock)
        self.count = count
        self.is_strict = is_strict
        self.concurrency = concurrency
        self.max_connections = max_connections
        self.random = random.Random(seed)
        self.board = Scoreboard(32)
        self.processes = [Process(self, row) for row in range(count)]
        self.queue: deque[int] = deque()
        self.waits: list[float] = []
        self.first_since = self.clock.now
        self.is_single_task = False  # each connection brings a task that blocks at once

    def arrive(self, many: int = 1) -> None:
        for _ in range(many):
            if not self.queue:
                self.first_since = self.clock.now
            self.queue.append(1)
            self.settle()

    def settle(self) -> None:
        """The kernel wakes whom it may."""
        while self.queue:
            ready = [each for each in self.processes if each.can_accept]
            if not ready:
                return
            self.queue.popleft()
            self.waits.append(self.clock.now - self.first_since)
            self.first_since = self.clock.now
            process = self.random.choice(ready)
            process.accept()
            if self.is_single_task:
                process.run(process.stats.running + 1)

    def advance(self, seconds: float) -> None:
        """Let time pass: the loops that turn fire their timers, each at its moment."""
        until = self.clock.now + seconds
        while True:
            turning = [each.loop for each in self.processes if not each.is_stuck]
            due = min((loop.next_due() or until for loop in turning), default=until)
            self.clock.now = max(self.clock.now, min(due, until))
            for loop in turning:
                loop.turn()
            self.settle()
            if due >= until:
                return

    @property
    def shares(self) -> list[int]:
        return [each.stats.connections for each in self.processes]

    @property
    def can_be_served(self) -> bool:
        """Some process neither is full nor stuck."""
        return any(not each.is_full and not each.is_stuck for each in self.processes)


@pytest.mark.parametrize("seed", range(20))
def test_twelve_connections_on_four_processes(monkeypatch, seed):
    world = World(monkeypatch, 4, seed=seed)
    world.arrive(12)
    world.advance(MAX_DEFER_SECONDS)
    assert sum(world.shares) == 12
    assert max(world.shares) <= 4, world.shares


@pytest.mark.parametrize("seed", range(20))
def test_eight_tasks_on_eight_processes_of_one_task_each(monkeypatch, seed):
    world = World(monkeypatch, 8, is_strict=True, concurrency=1, seed=seed)
    world.is_single_task = True
    world.arrive(8)
    assert world.shares == [1] * 8
    world.arrive()
    world.advance(1)
    assert len(world.queue) == 1, "all of them are full"
    idle = world.processes[seed % 8]
    idle.run(0)
    idle.close()
    world.settle()
    assert not world.queue
    assert idle.stats.connections == 1


@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_connections_that_are_kept(monkeypatch, seed):
    world = World(monkeypatch, 4, seed=seed)
    for _ in range(200):
        world.arrive()
        world.advance(0.0005)
    world.advance(MAX_DEFER_SECONDS)
    assert sum(world.shares) == 200
    assert max(world.shares) <= 50 * 1.2, world.shares


@pytest.mark.parametrize("seed", range(5))
def test_a_full_process_accepts_nothing_until_it_is_not(monkeypatch, seed):
    world = World(monkeypatch, 4, max_connections=5, seed=seed)
    full = world.processes[1]
    for _ in range(5):
        full.accept()
    assert not full.gate.is_open
    world.arrive(9)
    assert full.stats.connections == 5
    world.arrive(20)
    world.advance(1)
    assert world.shares == [5] * 4
    assert len(world.queue) == 14
    full.close()
    assert full.gate.is_open, "at once, not when a timer fires"
    world.settle()
    assert full.stats.connections == 5
    assert len(world.queue) == 13


@pytest.mark.parametrize("seed", range(5))
def test_an_idle_sibling_that_is_stuck_holds_up_nobody_for_long(monkeypatch, seed):
    world = World(monkeypatch, 3, seed=seed)
    world.processes[2].is_stuck = True
    world.arrive(40)
    world.advance(40 * MAX_DEFER_SECONDS)
    assert not world.queue
    assert max(world.waits) <= MAX_DEFER_SECONDS + SLACK
    assert world.shares[2] == 0
    assert sum(world.shares) == 40


def test_a_sibling_that_has_died_is_waited_for_only_until_its_row_is_cleared(monkeypatch):
    world = World(monkeypatch, 2)
    world.processes[1].is_stuck = True
    world.arrive(4)
    assert world.queue, "it is the idlest, as far as anybody knows"
    world.board.clear(1)
    world.advance(module.DEFER_SECONDS * 4 * FRESH_LOAD)
    assert not world.queue
    world.arrive(10)
    assert not world.queue


def test_who_has_more_to_do_waits_for_the_idler_one(monkeypatch):
    world = World(monkeypatch, 2)
    busy, idle = world.processes
    for _ in range(3):
        busy.accept()
    assert (busy.gate.is_open, idle.gate.is_open) == (False, True)
    world.advance(MAX_DEFER_SECONDS - SLACK)
    assert not busy.gate.is_open
    world.advance(2 * SLACK)
    assert busy.gate.is_open, "it may be stuck"


def test_who_becomes_idle_again_accepts_at_once(monkeypatch):
    world = World(monkeypatch, 2)
    busy, _ = world.processes
    for _ in range(3):
        busy.accept()
    busy.close()
    assert not busy.gate.is_open
    busy.close()
    assert busy.gate.is_open
    busy.stats.set_running(5)
    assert busy.gate.is_open, "nothing is looked at before it accepts again"


def test_strictly_only_the_idlest_accepts_and_none_eagerly_where_all_are_busy(monkeypatch):
    world = World(monkeypatch, 2, is_strict=True)
    first, second = world.processes
    first.accept()
    assert (first.gate.is_open, second.gate.is_open) == (False, True)
    second.accept()
    first.fairness.reconsider()
    assert (first.gate.is_open, second.gate.is_open) == (False, False)
    world.advance(MAX_DEFER_SECONDS + SLACK)
    assert first.gate.is_open
    assert second.gate.is_open


def test_one_process_alone_defers_to_nobody(monkeypatch):
    world = World(monkeypatch, 1)
    world.arrive(500)
    assert world.shares == [500]
    assert not world.processes[0].fairness.is_shared


def test_one_process_alone_accepts_ever_more_in_a_turn_of_its_loop(monkeypatch):
    world = World(monkeypatch, 1)
    fairness, stats = world.processes[0].fairness, world.processes[0].stats
    assert fairness.burst() == 1
    world.arrive(3)
    assert stats.connections == 3
    assert fairness.burst() == 4
    assert fairness.burst() == 1, "none came in the turn before"


def test_one_of_several_accepts_some_in_a_turn_of_its_loop(monkeypatch):
    world = World(monkeypatch, 2)
    world.arrive(8)
    assert [each.fairness.burst() for each in world.processes] == [module.BURST, module.BURST]


def test_connections_that_were_answered_are_few_to_their_process(monkeypatch):
    world = World(monkeypatch, 2)
    first, _ = world.processes
    for _ in range(module.HEAD_START):
        first.accept()
        first.stats.answered()
    assert first.gate.is_open, "no more than one of which nothing is known"
    first.accept()
    assert not first.gate.is_open


def test_a_single_task_process_is_not_kept_back_by_connections_that_wait_for_nothing(monkeypatch):
    world = World(monkeypatch, 2, is_strict=True)
    for _ in range(10):
        for process in world.processes:
            process.accept()
            process.stats.answered()
            process.fairness.reconsider()
            assert process.gate.is_open


def test_siblings_beyond_the_configured_ones_are_found_by_refresh(monkeypatch):
    world = World(monkeypatch, 1)
    alone = world.processes[0]
    world.processes.append(Process(world, 1))  # a reload's: there are two generations for a while
    for _ in range(5):
        alone.accept()
    assert alone.gate.is_open
    alone.fairness.refresh()
    assert alone.fairness.is_shared
    assert not alone.gate.is_open
    world.board.clear(1)
    alone.fairness.refresh()
    assert alone.gate.is_open
    assert not alone.fairness.is_shared


def test_a_pause_ends_by_itself(monkeypatch):
    world = World(monkeypatch, 2)
    process = world.processes[0]
    process.fairness.pause(0.25)
    world.advance(0.25 - SLACK)
    assert not process.gate.is_open
    world.advance(2 * SLACK)
    assert process.gate.is_open


def test_who_takes_no_part_any_more_has_neither_timer_nor_callback(monkeypatch):
    world = World(monkeypatch, 2)
    process = world.processes[0]
    world.advance(0)
    for _ in range(3):
        process.accept()
    process.gate.close()
    assert process.loop.timers, "it waits for the idler one"
    process.fairness.stop()
    assert not process.loop.timers
    assert process.stats.on_change is None
    process.fairness.reconsider()
    process.fairness.pause(1)
    process.fairness.refresh()
    assert not process.loop.timers
    assert not process.gate.is_open


class AnyHistory(RuleBasedStateMachine):
    """Whatever happens: who can be served waits no longer than `MAX_DEFER_SECONDS` at the front."""

    @initialize(
        count=st.integers(1, 4),
        is_strict=st.booleans(),
        concurrency=st.integers(1, 3),
        seed=st.integers(0, 99),
    )
    def start(self, count, is_strict, concurrency, seed):
        self.monkeypatch = pytest.MonkeyPatch()
        self.world = World(
            self.monkeypatch,
            count,
            is_strict=is_strict,
            concurrency=concurrency,
            max_connections=6,
            seed=seed,
        )
        self.could_be_served_since = self.world.clock.now

    def teardown(self):
        if hasattr(self, "monkeypatch"):
            self.monkeypatch.undo()

    def pick(self, number: int) -> Process:
        return self.world.processes[number % self.world.count]

    def after(self, could: bool) -> None:
        if not could:
            self.could_be_served_since = self.world.clock.now
        self.world.settle()

    @rule(many=st.integers(1, 5))
    def arrive(self, many):
        self.world.arrive(many)

    @rule(number=st.integers(0, 3))
    def close(self, number):
        process, could = self.pick(number), self.world.can_be_served
        if process.stats.connections and not process.is_stuck:
            process.close()
        self.after(could)

    @rule(number=st.integers(0, 3), tasks=st.integers(0, 3))
    def run(self, number, tasks):
        process, could = self.pick(number), self.world.can_be_served
        if not process.is_stuck:
            process.run(min(tasks, self.world.concurrency))
        self.after(could)

    @rule(number=st.integers(0, 3))
    def stick(self, number):
        self.pick(number).is_stuck = True

    @rule(number=st.integers(0, 3))
    def go_on(self, number):
        could = self.world.can_be_served
        self.pick(number).is_stuck = False
        self.world.advance(0)
        self.after(could)

    @rule(milliseconds=st.integers(0, 50))
    def advance(self, milliseconds):
        self.world.advance(milliseconds / 1000)

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def nobody_waits_long(self):
        world = self.world
        if world.queue and world.can_be_served:
            since = max(world.first_since, self.could_be_served_since)
            assert world.clock.now - since <= MAX_DEFER_SECONDS + SLACK

    @precondition(lambda self: hasattr(self, "world"))
    @invariant()
    def the_gates_are_right(self):
        for process in self.world.processes:
            assert not (process.is_full and process.gate.is_open)
            assert len(process.loop.timers) <= 2, "the gate's, and one to reconsider"


AnyHistory.TestCase.settings = hypothesis_settings(
    max_examples=40, stateful_step_count=30, deadline=None
)
test_any_history = AnyHistory.TestCase
