"""How workers are ended, as histories of a roster on a fake clock."""

from __future__ import annotations

import signal

from gtask.master.actions import Abandon, Action, Dismiss, Halt, Signal, Spawn
from gtask.master.plans import Plan
from gtask.master.slots import Phase

from .rosters import CLEAN, EXIT_3, KILLED, World, signals, spawned


def test_who_is_replaced_leaves_the_queue_to_its_heirs_if_it_has_any():
    world = World()
    world.roster.loaded(1, {"T": Plan(1, place="a"), "Gone": Plan(1, place="b")})
    world.step()
    world.settle()
    pids = {each.service: each.pid for each in world.roster.processes}
    world.roster.loaded(2, {"Renamed": Plan(1, place="a"), "T": Plan(1, place="c")})
    world.step()
    world.boot()
    actions = world.step()
    assert Signal(pids["T"], signal.SIGURG) in actions, "another service has its address now"
    assert Signal(pids["Gone"], signal.SIGURG) not in actions
    assert Signal(pids["Gone"], signal.SIGTERM) in actions


def test_at_a_stop_nobody_has_heirs():
    world = World(T=2)
    world.settle()
    world.roster.drain(world.now)
    assert signals(world.step()) == [signal.SIGTERM] * 2


def test_drain_ends_with_a_kill_at_the_deadline():
    world = World(stop_timeout=5, T=2)
    world.settle()
    world.roster.drain(world.now)
    assert signals(world.step()) == [signal.SIGTERM] * 2
    world.roster.exited(1000, CLEAN, world.now)
    assert world.step(4.9) == []
    assert not world.roster.was_cut_off
    world.now = world.roster.wake_at(world.now)
    assert world.step() == [Signal(1001, signal.SIGKILL)]
    world.roster.exited(1001, KILLED, world.now)
    assert world.roster.was_cut_off
    assert world.roster.processes == []
    assert world.step(100) == []


def test_asking_again_skips_a_stage():
    world = World(T=1)
    world.settle()
    world.roster.drain(world.now)
    world.roster.hurry(world.now)
    assert signals(world.step()) == [signal.SIGTERM, signal.SIGINT]
    assert signals(world.step(2)) == [signal.SIGKILL]
    world.roster.kill(world.now)
    assert signals(world.step()) == [signal.SIGKILL]
    assert not world.roster.was_cut_off, "that is what was asked for"


def test_what_is_forked_after_the_stop_is_ended():
    world = World()
    world.roster.loaded(1, {"T": Plan(1)})
    (spawn,) = world.roster.decide(world.now)
    assert isinstance(spawn, Spawn)
    world.roster.drain(world.now)
    world.roster.spawned(1, "T", spawn.row, 7, world.now)
    assert world.step() == [Signal(7, signal.SIGTERM)]
    assert world.step(0.5) == [Signal(7, signal.SIGKILL)]
    world.roster.exited(7, KILLED, world.now)
    assert not world.roster.was_cut_off, "no task can have run in it"


def test_what_is_ready_after_all_has_the_time_of_a_drain():
    world = World(stop_timeout=5)
    world.roster.loaded(1, {"T": Plan(1)})
    (spawn,) = world.roster.decide(world.now)
    world.roster.spawned(1, "T", spawn.row, 7, world.now)
    world.roster.drain(world.now)
    assert world.step() == [Signal(7, signal.SIGTERM)]
    world.roster.ready(7, world.now)
    assert world.step(5.0) == []
    assert world.step(0.5) == [Signal(7, signal.SIGKILL)]
    assert world.roster.was_cut_off


def test_what_was_cut_off_in_a_reload_is_not_cut_off_in_the_stop():
    world = World(stop_timeout=5, T=1)
    world.settle()
    world.load(2, T=1)
    world.boot()
    world.step()
    old = world.roster.processes[0]
    assert old.phase == Phase.DRAINING
    assert signals(world.step(6)) == [signal.SIGKILL]
    world.roster.exited(old.pid, KILLED, world.now)
    world.settle()
    world.roster.drain(world.now)
    world.settle()
    assert not world.roster.was_cut_off


def test_a_stuck_task_that_is_killed_in_a_stop_was_cut_off():
    world = World()
    world.load(1, hard_timeout=2, T=1)
    world.settle()
    (stuck,) = world.roster.processes
    world.roster.drain(world.now)
    world.step()
    assert signals(world.step(1.9)) == []
    assert signals(world.step(0.2)) == [signal.SIGABRT]
    world.roster.exited(stuck.pid, 6, world.now)
    assert world.roster.was_cut_off


def limited(seconds: float, **counts: int) -> World:
    world = World()
    world.roster.endings.boot_timeout = seconds
    world.load(1, **counts)
    return world


def awake(world: World, seconds: float) -> list[Action]:
    """Let time pass as for a master that decides every second."""
    actions: list[Action] = []
    for _ in range(int(seconds)):
        actions += world.step(1.0)
    return actions


def test_a_worker_that_does_not_become_ready_is_dumped_and_killed():
    world = limited(10, T=1)
    assert awake(world, 11) == []
    (late,) = world.roster.processes
    assert world.step(0.1) == [Signal(late.pid, signal.SIGABRT)]
    assert world.step(1) == [Signal(late.pid, signal.SIGKILL)]
    world.roster.exited(late.pid, KILLED, world.now)
    text = "T cannot start: not ready within boot_timeout (10 s), the log has its stacks"
    assert world.step()[0] == Halt(text)


def test_a_worker_that_says_where_it_hangs_is_believed():
    world = limited(10, T=1)
    (late,) = world.roster.processes
    world.roster.failed(late.pid, "it hangs in app.py, line 3")
    awake(world, 12)
    world.roster.exited(late.pid, EXIT_3, world.now)
    assert world.step()[0] == Halt("T cannot start: it hangs in app.py, line 3")


def test_a_reload_whose_workers_hang_is_given_up():
    world = limited(10, T=1)
    world.settle()
    world.load(2, T=1)
    young = next(each for each in world.roster.processes if each.generation == 2)
    awake(world, 12)
    world.roster.exited(young.pid, KILLED, world.now)
    world.step()
    assert any(isinstance(each, Abandon) for each in world.done)
    assert world.running() == [(1, "T", 0)]


def test_a_mold_that_does_not_fork_is_ended():
    world = World()
    world.roster.endings.boot_timeout = 10
    world.roster.loaded(1, {"T": Plan(2)})
    first, _ = (each for each in world.roster.decide(world.now) if isinstance(each, Spawn))
    for _ in range(8):
        assert world.roster.decide(world.now + 1) == []
        world.now += 1
    world.roster.spawned(1, "T", first.row, 7, world.now)
    world.roster.ready(7, world.now)
    for _ in range(11):
        world.now += 1
        assert world.roster.decide(world.now) == []
    world.now += 1
    assert Dismiss(1) in world.roster.decide(world.now)
    world.roster.mold_lost(1, world.now)
    assert world.running() == [(1, "T", 0)]


def test_a_start_that_is_stopped_has_half_a_second():
    world = World(stop_timeout=60, T=2)
    ready, booting = world.roster.processes
    world.roster.ready(ready.pid, world.now)
    world.roster.drain(world.now)
    assert signals(world.step()) == [signal.SIGTERM] * 2
    assert world.step(0.5) == [Signal(booting.pid, signal.SIGKILL)]
    world.roster.exited(booting.pid, KILLED, world.now)
    world.roster.exited(ready.pid, CLEAN, world.now)
    assert not world.roster.was_cut_off


def test_a_stuck_worker_is_dumped_and_then_killed():
    world = World()
    world.load(1, hard_timeout=2, T=2)
    world.settle()
    stuck, fine = world.roster.processes
    killed = None
    for _ in range(12):
        world.roster.beat(fine.pid, world.now)
        actions = world.step(0.25)
        if actions:
            killed = killed or world.now
            assert actions == [Signal(stuck.pid, signal.SIGABRT)]
            break
    assert killed == 102.25
    assert world.step(1) == [Signal(stuck.pid, signal.SIGKILL)]
    world.roster.exited(stuck.pid, KILLED, world.now)
    assert spawned(world.step()) == [("T", 0, 0)]
    assert world.roster.restarts == {("T", "hard_timeout"): 1}


def test_nobody_is_stuck_when_the_machine_slept():
    world = World()
    world.load(1, hard_timeout=2, T=1)
    world.settle()
    assert world.step(3600) == []
    assert world.step(1.9) == []
    assert signals(world.step(0.2)) == [signal.SIGABRT]


def test_without_hard_timeout_a_stuck_worker_is_let_be():
    world = World(T=1)
    world.settle()
    for _ in range(100):
        assert world.step(1) == []
