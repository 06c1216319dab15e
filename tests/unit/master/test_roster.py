"""The master's decisions, as histories on a fake clock: no process is started here."""

from __future__ import annotations

import math
import signal
from collections import Counter

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.master.actions import Abandon, Dismiss, Halt, Say, Signal, Spawn
from gtask.master.plans import Plan
from gtask.master.slots import Phase

from .rosters import CLEAN, EXIT_3, KILLED, World, signals, spawned


def test_fills_every_slot_at_once_with_the_lowest_rows():
    world = World(T=3, W=1)
    assert spawned(world.done) == [("T", 0, 0), ("T", 1, 1), ("T", 2, 2), ("W", 0, 0)]
    assert not world.roster.is_up
    world.settle()
    assert world.roster.is_up
    assert world.roster.has_taken_over


def test_replaces_a_dead_worker_at_once_with_its_id_and_row():
    world = World(T=3)
    world.settle()
    world.now += 60
    world.die("T", 1)
    assert world.step() == [Spawn(1, "T", 1, 1)]
    assert world.roster.restarts == {("T", "killed by SIGKILL, perhaps out of memory"): 1}


def test_a_process_that_keeps_dying_young_comes_back_ever_later():
    world = World(T=1)
    world.settle()
    waits = []
    for _ in range(6):
        world.die("T", 0, EXIT_3)
        before = world.now
        while not world.step():
            wake = world.roster.wake_at(world.now)
            assert wake > world.now
            world.now = wake
        waits.append(round(world.now - before, 3))
        world.settle()
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    world.now += 5
    world.die("T", 0, EXIT_3)
    assert spawned(world.step()) == [("T", 0, 0)], "it lived a while: no more delay"


def test_the_crash_of_one_does_not_delay_another():
    world = World(T=2)
    world.settle()
    for _ in range(5):
        world.die("T", 0)
        world.now += 5
        world.step()
        world.settle()
    world.die("T", 0)
    world.die("T", 1)
    assert spawned(world.step()) == [("T", 1, 0)], "only the one that has not crashed before"


def test_a_service_that_cannot_boot_at_all_halts_the_program():
    world = World(T=4, W=1)
    for worker_id in range(2):
        world.die("T", worker_id, EXIT_3)
        assert not any(isinstance(each, Halt) for each in world.step())
    process = next(each for each in world.roster.processes if each.worker_id == 2)
    world.roster.failed(process.pid, "KeyError: 'MAIL_HOST' (mail.py, line 3)")
    world.die("T", 2, EXIT_3)
    assert world.step()[0] == Halt("T cannot start: KeyError: 'MAIL_HOST' (mail.py, line 3)")


def test_one_boot_failure_is_enough_for_a_single_worker():
    world = World(T=1)
    world.die("T", 0, EXIT_3)
    assert Halt("T cannot start: exit 3") in world.step()


def test_boot_failures_after_it_once_served_only_slow_it_down():
    world = World(T=1)
    world.settle()
    for _ in range(10):
        world.die("T", 0)
        world.now += 10
        assert not any(isinstance(each, Halt) for each in world.step())


def test_a_fork_that_fails_is_tried_again():
    world = World(T=2)
    world.settle()
    world.now += 60
    world.die("T", 0)
    (spawn,) = (each for each in world.roster.decide(world.now) if isinstance(each, Spawn))
    world.roster.not_spawned(1, "T", spawn.row, "cannot fork: try again", world.now)
    world.step(0.2)
    world.settle()
    assert world.roster.is_up


def test_reload_puts_the_new_up_before_it_drains_the_old():
    world = World(T=4)
    world.settle()
    world.done.clear()
    world.load(2, T=4)
    assert spawned(world.done) == [("T", 0, 0), ("T", 1, 1)], "a few at a time"
    assert not signals(world.done)
    old = [each.pid for each in world.roster.processes if each.generation == 1]
    world.roster.ready(1004, world.now)
    actions = world.step()
    assert actions[:1] == [Spawn(2, "T", 2, 2)]
    assert actions[1:] == [
        Signal(old[0], signal.SIGHUP),
        Signal(old[0], signal.SIGURG),
        Signal(old[0], signal.SIGTERM),
    ]
    world.settle()
    assert world.running() == [(2, "T", n) for n in range(4)]
    assert world.roster.has_taken_over
    assert world.done[-1] == Dismiss(1)
    assert world.roster.restarts == {("T", "reload"): 4}


def test_reload_keeps_all_old_ones_until_each_service_has_a_new_one():
    world = World(T=2, W=1)
    world.settle()
    world.load(2, T=2, W=1)
    for process in world.roster.processes:
        if process.generation == 2 and process.service == "T":
            world.roster.ready(process.pid, world.now)
    assert not signals(world.step())
    world.settle()
    assert world.running() == [(2, "T", 0), (2, "T", 1), (2, "W", 0)]


def test_reload_that_cannot_boot_is_given_up_and_the_old_stay():
    world = World(T=2)
    world.settle()
    before = world.running()
    world.load(2, T=2)
    for _ in range(2):
        young = next(each for each in world.roster.processes if each.generation == 2)
        world.roster.exited(young.pid, EXIT_3, world.now)
        world.step(1)
    assert Abandon(2, "T cannot start: exit 3") in world.done
    world.settle()
    assert world.running() == before
    assert world.roster.generation == 1


def test_a_mold_that_dies_while_its_workers_boot_ends_the_reload():
    world = World(T=2)
    world.settle()
    world.load(2, T=2)
    world.roster.mold_lost(2, world.now)
    assert any(isinstance(each, Abandon) for each in world.step())
    world.settle()
    assert world.running() == [(1, "T", 0), (1, "T", 1)]


def test_without_a_mold_nothing_is_asked_for():
    world = World(T=2)
    world.settle()
    world.roster.mold_lost(1, world.now)
    world.now += 60
    world.die("T", 0)
    assert world.step() == []
    assert world.roster.wake_at(world.now) == math.inf
    world.load(2, T=2)
    world.settle()
    assert world.running() == [(2, "T", 0), (2, "T", 1)]


def test_reload_changes_counts_and_services():
    world = World(T=4, Gone=2)
    world.settle()
    world.load(2, T=2, New=3)
    world.settle()
    assert world.running() == [
        (2, "New", 0),
        (2, "New", 1),
        (2, "New", 2),
        (2, "T", 0),
        (2, "T", 1),
    ]


def test_recycling_puts_the_replacement_up_first():
    world = World(T=2)
    world.settle()
    old = world.roster.processes[0]
    world.roster.recycle(old.pid, "max_tasks: 1000 tasks done")
    assert world.step() == [Spawn(1, "T", 0, 2)], "in another row"
    assert world.step() == []
    world.boot()
    assert world.step() == [Signal(old.pid, signal.SIGURG), Signal(old.pid, signal.SIGTERM)]
    assert world.roster.restarts == {("T", "max_tasks"): 1}


def busy(world: World, worker_id: int = 0) -> None:
    """Let a worker ask to go, and stay busy when it drains."""
    process = next(
        each
        for each in world.roster.processes
        if each.worker_id == worker_id and each.phase == Phase.READY and not each.recycled_for
    )
    world.roster.recycle(process.pid, "max_tasks: 3 tasks done")


def test_workers_that_stay_busy_do_not_pile_up_as_they_are_recycled():
    world = World(T=3)
    world.settle()
    for worker_id in range(3):
        busy(world, worker_id)
    for _ in range(3):
        world.step()
        world.boot()
    draining = [each for each in world.roster.processes if each.phase == Phase.DRAINING]
    assert len(draining) == 3
    for worker_id in range(3):
        busy(world, worker_id)
    assert world.step(0.1) == [], "the next ones wait, and serve"
    world.roster.exited(draining[0].pid, CLEAN, world.now)
    assert len(spawned(world.step())) == 1
    world.settle()
    assert len(world.running()) == 3


def test_rows_run_out_and_the_roster_says_so_and_goes_on():
    world = World()
    world.roster.loaded(1, {"T": Plan(2, rows=4)})
    world.step()
    world.settle()
    for _ in range(10):  # up and down: those that are too many stay busy
        world.roster.scale(+1)
        world.step()
        world.boot()
        world.roster.scale(-1)
        world.step()
    rows = [each.row for each in world.roster.processes]
    assert len(rows) == len(set(rows)) <= 4
    world.roster.scale(+1)
    for _ in range(3):
        lines = [each for each in world.roster.decide(world.now) if isinstance(each, Say)]
        assert all("has no row left" in each.text for each in lines)
        world.now += 0.1
    world.settle()
    assert world.roster.is_up


def test_there_are_never_more_than_have_rows_when_all_of_them_are_replaced():
    world = World(T=2)
    world.roster.scale(+100_000)
    plan = world.roster.plans["T"]
    assert plan.count + plan.most_draining + plan.surge <= plan.rows


def test_more_and_fewer():
    world = World(T=2, W=1)
    world.settle()
    world.roster.scale(+1)
    assert spawned(world.step()) == [("T", 2, 2)], "a single process stays single"
    world.settle()
    world.roster.scale(-2)
    assert signals(world.step()) == [signal.SIGURG, signal.SIGTERM] * 2
    world.settle()
    world.roster.scale(-5)
    world.settle()
    assert world.running() == [(1, "T", 0), (1, "W", 0)]


def test_an_only_service_can_grow_from_one():
    world = World(T=1)
    world.settle()
    world.roster.scale(+1)
    assert spawned(world.step()) == [("T", 1, 1)]


def test_what_dies_while_the_new_hang_is_replaced_by_the_old_mold():
    world = World(T=2)
    world.settle()
    world.load(2, T=2)
    world.now += 60
    old = next(each for each in world.roster.processes if each.generation == 1)
    world.roster.exited(old.pid, KILLED, world.now)
    (spawn,) = (each for each in world.step() if isinstance(each, Spawn))
    assert (spawn.generation, spawn.worker_id) == (1, old.worker_id)
    world.settle()
    assert world.running() == [(2, "T", 0), (2, "T", 1)]


# -- a reload that a newer one replaces -----------------------------------------------------------


def test_a_generation_that_has_not_served_is_withdrawn():
    world = World(T=2, W=1)
    world.settle()
    before = world.running()
    world.load(2, T=2, W=1)
    assert world.roster.standing == 1
    world.roster.withdraw()
    assert world.roster.generation == 1
    world.step()
    assert {each.phase for each in world.roster.processes if each.generation == 2} == {
        Phase.DRAINING
    }
    assert not any(isinstance(each, Abandon) for each in world.done), "it was asked for"
    world.settle()
    assert world.running() == before


def test_one_that_has_served_stands_and_the_next_replaces_it_half_way():
    world = World(T=4)
    world.settle()
    world.load(2, T=4)
    young = next(each for each in world.roster.processes if each.generation == 2)
    world.roster.ready(young.pid, world.now)
    world.step()
    assert world.roster.standing == 2
    world.roster.withdraw()
    assert world.roster.generation == 2
    world.load(3, T=4)
    assert Dismiss(1) in world.done
    world.settle()
    assert world.running() == [(3, "T", number) for number in range(4)]
    assert Dismiss(2) in world.done


def test_without_a_mold_to_go_back_to_the_new_one_stands():
    world = World(T=1)
    world.settle()
    world.load(2, T=1)
    world.roster.mold_lost(1, world.now)
    assert world.roster.standing == 2


def test_a_process_that_is_known_is_not_another():
    world = World(T=2)
    world.settle()
    world.roster.scale(+1)
    (spawn,) = (each for each in world.roster.decide(world.now) if isinstance(each, Spawn))
    pid = world.roster.processes[0].pid
    assert not world.roster.spawned(1, "T", spawn.row, pid, world.now)
    assert world.roster.spawned(1, "T", spawn.row, 77, world.now)


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order, the roster keeps its promises."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(stop_timeout=3.0, T=3, W=1)
        self.world.roster.endings.boot_timeout = 5.0
        self.generation = 1
        self.alive = {each.pid for each in self.world.roster.processes}
        self.asked: list[Spawn] = []

    def take(self) -> None:
        """Carry out what the roster wants; forks happen later, signals at once."""
        world = self.world
        for action in world.roster.decide(world.now):
            if isinstance(action, Spawn):
                self.asked.append(action)
            elif isinstance(action, Signal):
                assert action.pid in self.alive, "a signal to a stranger"
                if action.number == signal.SIGKILL:
                    self.alive.remove(action.pid)
                    world.roster.exited(action.pid, KILLED, world.now)

    @rule(index=st.integers(0, 10))
    def fork(self, index: int) -> None:
        if self.asked:
            spawn = self.asked.pop(index % len(self.asked))
            pid = next(self.world.pids)
            self.alive.add(pid)
            self.world.roster.spawned(
                spawn.generation, spawn.service, spawn.row, pid, self.world.now
            )
            self.take()

    @rule(index=st.integers(0, 10))
    def boot(self, index: int) -> None:
        if self.alive:
            self.world.roster.ready(sorted(self.alive)[index % len(self.alive)], self.world.now)
            self.take()

    @rule(index=st.integers(0, 10), status=st.sampled_from([CLEAN, KILLED, EXIT_3]))
    def end(self, index: int, status: int) -> None:
        if self.alive:
            pid = sorted(self.alive)[index % len(self.alive)]
            self.alive.remove(pid)
            self.world.roster.exited(pid, status, self.world.now)
            self.take()

    @rule(index=st.integers(0, 10))
    def recycle(self, index: int) -> None:
        if self.alive:
            self.world.roster.recycle(sorted(self.alive)[index % len(self.alive)], "max_tasks: 1")
            self.take()

    @precondition(lambda self: not self.world.roster.is_stopping)
    @rule(t=st.integers(1, 4), w=st.integers(0, 2))
    def reload(self, t: int, w: int) -> None:
        self.generation += 1
        counts = {"T": t} | ({"W": w} if w else {})
        self.world.roster.loaded(self.generation, {name: Plan(n) for name, n in counts.items()})
        self.take()

    @rule(delta=st.sampled_from([-1, 1]))
    def scale(self, delta: int) -> None:
        self.world.roster.scale(delta)
        self.take()

    @rule(seconds=st.floats(0, 6))
    def wait(self, seconds: float) -> None:
        self.world.now += seconds
        self.take()

    @rule()
    def stop(self) -> None:
        self.world.roster.drain(self.world.now)
        self.take()

    @invariant()
    def nobody_is_lost(self) -> None:
        known = {each.pid for each in self.world.roster.processes if each.pid}
        assert known == self.alive

    @rule()
    def withdraw(self) -> None:
        self.world.roster.withdraw()
        self.take()

    @invariant()
    def nobody_is_one_too_many(self) -> None:
        staying = Counter(
            (each.service, each.worker_id)
            for each in self.world.roster.processes
            if each.phase != Phase.DRAINING
            and each.generation == self.world.roster.generation
            and not each.recycled_for
        )
        assert all(count == 1 for count in staying.values())

    @invariant()
    def no_row_is_shared(self) -> None:
        rows = Counter(
            (each.generation, each.service, each.row) for each in self.world.roster.processes
        )
        assert all(count == 1 for count in rows.values())

    @invariant()
    def there_is_always_a_next_move(self) -> None:
        roster = self.world.roster
        if roster.is_stopping:
            return
        for service, plan in roster.plans.items():
            for worker_id in range(plan.count):
                is_there = any(
                    (each.service, each.worker_id) == (service, worker_id)
                    for each in roster.processes
                )
                assert is_there or roster.wake_at(self.world.now) < math.inf


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=60, deadline=None)
