"""Turns: who runs, who waits, and who is refused; as histories on a fake loop."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gtask import scoreboard as board
from gtask.errors import DRAINING, OVERLOADED, TaskTimedOut
from gtask.protocols.messages import BARE
from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import turns as module
from gtask.server.stats import RUNNING_LOAD, WorkerStats
from gtask.server.turns import Turns

from ...support.calls import NotedConnection, make_call
from ...support.loop import FakeLoop


class World:
    """Turns, and a connection whose calls block as soon as they get one."""

    def __init__(self, concurrency: int) -> None:
        self.loop = FakeLoop()
        self.board = Scoreboard(1)
        stats = WorkerStats(self.board)
        stats.boot(0, os.getpid())
        stats.state(WorkerState.READY)
        self.turns = Turns(concurrency, self.loop, stats)
        self.connection = NotedConnection(self.turns.take)
        self.calls = {}

    def come(self, id, **options):
        """A call comes in: it runs, or waits, as `TaskConnection` has it."""
        call = self.calls[id] = make_call(self.connection, id, **options)
        if self.turns.is_full or self.turns.is_closed:
            self.turns.wait(call)
        else:
            self.connection.run_waiting(call)
        return call

    def end(self, id):
        """A call that runs has ended."""
        call = self.calls[id]
        call.is_done = True
        self.turns.give_back(call)
        self.loop.turn()

    @property
    def running(self):
        return sorted(call.id for call in self.turns.blocked)


def test_those_beyond_concurrency_wait_and_start_in_order():
    world = World(2)
    for id in range(5):
        world.come(id)
    assert world.running == [0, 1]
    assert world.turns.is_full
    world.end(1)
    assert world.running == [0, 2]
    world.end(0)
    world.end(2)
    assert world.running == [3, 4]
    world.end(3)
    world.end(4)
    assert world.connection.started == [0, 1, 2, 3, 4]
    assert world.turns.running == 0
    assert not world.turns.waiting


def test_the_board_and_the_gate_are_told():
    world = World(2)
    full = []
    world.turns.on_full = lambda: full.append(world.turns.running)
    world.come(0)
    assert not full
    world.come(1)
    assert full == [2]
    assert world.board.ints[board.RUNNING] == 2
    assert world.board.loads[0] == 2 * RUNNING_LOAD
    world.end(0)
    assert world.board.ints[board.RUNNING] == 1
    assert world.board.loads[0] == RUNNING_LOAD


def test_a_turn_is_given_back_once():
    world = World(1)
    call = world.come(0)
    world.turns.give_back(call)
    world.turns.give_back(call)
    assert world.turns.running == 0


def test_who_was_answered_while_it_waited_is_not_started():
    world = World(1)
    for id in range(3):
        world.come(id)
    world.calls[1].refuse(TaskTimedOut("too late"))
    world.end(0)
    assert world.connection.started == [0, 2]


def test_calls_that_do_not_block_are_over_one_after_the_other():
    world = World(1)
    world.come(0)
    world.connection._start = lambda call: None  # it has ended when it comes back
    for id in (1, 2, 3):
        world.come(id)
    world.end(0)
    assert world.connection.started == [0, 1, 2, 3]
    assert world.turns.running == 0


def test_the_loop_turns_between_many_calls_that_do_not_block(monkeypatch):
    world = World(1)
    monkeypatch.setattr(module, "monotonic", world.loop.clock)
    world.come(0)
    for id in range(1, 10):
        world.come(id)

    def work(call):
        world.loop.clock.now += 0.002

    world.connection._start = work
    world.end(0)
    turns = [len(world.connection.started)]
    while world.turns.waiting:
        world.loop.turn()
        turns.append(len(world.connection.started))
    assert turns == [7, 10], "three of 2 ms for the callback, and three each time a timer fires"


def test_waiting_calls_are_limited_but_bare_ones_hold_themselves_back(monkeypatch):
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    world = World(1)
    for id in range(5):
        world.come(id)
    assert world.connection.codes() == [(4, OVERLOADED)]
    (_, reply) = world.connection.answers[0]
    assert reply["error"]["data"] == {"retry_after": 1.0}
    world.come("bare", dialect=BARE)
    assert len(world.turns.waiting) == 4


def test_closed_it_refuses_what_waits_and_what_comes_but_ends_nothing():
    world = World(1)
    for id in range(3):
        world.come(id)
    world.turns.close()
    world.come(3)
    assert world.connection.codes() == [(id, DRAINING) for id in (1, 2, 3)]
    assert world.running == [0]
    world.end(0)
    assert world.connection.started == [0]


def test_the_oldest_is_the_one_that_started_first():
    world = World(3)
    assert world.turns.oldest() == (0, 0.0)
    for id in range(3):
        world.come(id).started = 100.0 - id
        world.calls[id].task.number = id + 1
    assert world.turns.oldest() == (3, 98.0)
    world.end(2)
    assert world.turns.oldest() == (2, 99.0)


@given(
    concurrency=st.integers(1, 3),
    steps=st.lists(st.tuples(st.sampled_from("ceer"), st.integers(0, 9)), max_size=40),
)
@hypothesis_settings(deadline=None)
def test_no_history_starts_too_many_or_forgets_one(concurrency, steps):
    world = World(concurrency)
    for number, (what, which) in enumerate(steps):
        waiting = [call for call in world.turns.waiting if not call.is_answered]
        if what == "c":
            world.come(number)
        elif what == "e" and world.running:
            world.end(world.running[which % len(world.running)])
        elif what == "r" and waiting:
            waiting[which % len(waiting)].refuse(TaskTimedOut())
        assert world.turns.running == len(world.turns.blocked) <= concurrency
    while world.running:
        world.end(world.running[0])
    refused = [id for id, _ in world.connection.answers]
    assert sorted(world.connection.started + refused) == sorted(world.calls)
    assert world.connection.started == sorted(world.connection.started)


def test_each_eighth_free_turn_is_for_a_durable_task_while_calls_wait():
    world = World(1)
    world.come(0)
    for number in range(1, 20):
        world.come(number)
    queued = [make_call(world.connection, 100 + number) for number in range(2)]
    world.turns.queued.extend(queued)
    order = []
    for _ in range(20):
        (running,) = world.running
        order.append(running)
        if running in world.calls:
            world.end(running)
        else:
            world.turns.give_back(queued[running - 100])
            world.loop.turn()
    assert [order.index(100), order.index(101)] == [8, 16]


def test_without_calls_that_wait_every_free_turn_is_for_durable_tasks():
    world = World(2)
    world.come(0)
    world.come(1)
    world.turns.queued.extend(make_call(world.connection, 100 + n) for n in range(2))
    world.end(0)
    world.end(1)
    assert world.running == [100, 101]
