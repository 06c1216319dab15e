"""Time limits, as histories on a fake clock: first the answer, then ever firmer ends."""

from __future__ import annotations

import contextlib
import logging
import os

import pytest
from greenlet import GreenletExit

from gtask import scoreboard as board
from gtask.errors import CANCELLED, TIMED_OUT, TaskTimeout
from gtask.scoreboard import Scoreboard
from gtask.server import limits as module
from gtask.server.limits import CLEANUP_SECONDS, KILL_SECONDS, KILLS, Limits
from gtask.server.stats import WorkerStats
from gtask.server.turns import Turns

from ...support.calls import NotedConnection, make_call
from ...support.loop import FakeLoop


class FakeTaskGreenlet:
    """A task that has blocked. It survives so many ends.

    Attributes:
        ends: (seconds since the call came, exception, whether its caller had been answered).
    """

    def __init__(self, world, call, survives):
        self.world = world
        self.call = call
        self.survives = survives
        self.ends = []

    def throw(self, how):
        assert not self.call.is_done, "whatever runs there now is not this call"
        since = round(self.world.loop.clock.now - 1000.0, 6)
        self.ends.append((since, type(how), self.call.is_answered))
        if len(self.ends) > self.survives:
            self.world.end(self.call)


class World:
    def __init__(self, monkeypatch):
        self.loop = FakeLoop()
        monkeypatch.setattr(module, "monotonic", self.loop.clock)
        self.board = Scoreboard(1)
        stats = WorkerStats(self.board)
        stats.boot(0, os.getpid())
        self.turns = Turns(10, self.loop, stats)
        self.limits = Limits(self.loop, self.turns, stats)
        self.connection = NotedConnection()
        self.abandoned = []
        self.limits.on_abandoned = self.abandoned.append

    def wait(self, id, seconds):
        """A call that waits for its turn, with that much time."""
        call = make_call(self.connection, id)
        call.deadline = self.loop.clock.now + seconds
        self.limits.keep(call)
        return call

    def block(self, id, seconds, survives=0):
        """A call that has started and blocked."""
        call = make_call(self.connection, id)
        call.set_limit(self.loop.clock.now, seconds)
        call.greenlet = FakeTaskGreenlet(self, call, survives)
        self.turns.take(call)
        self.limits.keep(call)
        return call

    def end(self, call):
        """As `TaskConnection` does with a task that has ended."""
        call.is_done = True
        call.stop_timer()
        self.turns.give_back(call)
        if not call.is_answered:
            self.connection.answer(call, b'{"result":"done"}')


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_call_is_answered_at_its_deadline_and_then_its_task_is_told(world, caplog):
    call = world.block(1, 2.0)
    world.loop.advance(1.999)
    assert not world.connection.answers
    world.loop.advance(0.001)
    ((id, reply),) = world.connection.answers
    assert (id, reply["error"]["code"]) == (1, TIMED_OUT)
    assert reply["error"]["message"] == "work: timed out after 2 s"
    assert call.greenlet.ends == [(2.0, TaskTimeout, True)]
    assert world.turns.running == 0
    assert not world.loop.timers
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_task_that_ends_in_time_has_no_timer_any_more(world):
    call = world.block(1, 2.0)
    world.loop.advance(1.0)
    world.end(call)
    assert not world.loop.timers
    world.loop.advance(10)
    assert world.connection.answers == [(1, {"result": "done"})]
    assert not call.greenlet.ends


def test_a_call_without_limit_has_no_timer(world):
    world.block(1, 0)
    assert not world.loop.timers


def test_a_task_may_clean_up_and_is_killed_after_that(world):
    call = world.block(1, 2.0, survives=1)
    world.loop.advance(2.0 + CLEANUP_SECONDS - 0.001)
    assert len(call.greenlet.ends) == 1
    world.loop.advance(100)
    assert call.greenlet.ends == [
        (2.0, TaskTimeout, True),
        (2.0 + CLEANUP_SECONDS, GreenletExit, True),
    ]
    assert len(world.connection.answers) == 1
    assert world.board.ints[board.ABANDONED] == 0


def test_a_task_that_ignores_every_end_is_given_up(world):
    call = world.block(1, 2.0, survives=100)
    first_kill = 2.0 + CLEANUP_SECONDS
    world.loop.advance(first_kill + (KILLS - 1) * KILL_SECONDS - 0.001)
    assert (world.turns.running, world.abandoned) == (1, [])
    world.loop.advance(100)
    kills = [first_kill + number * KILL_SECONDS for number in range(KILLS)]
    assert call.greenlet.ends == [
        (2.0, TaskTimeout, True),
        *((moment, GreenletExit, True) for moment in kills),
    ]
    assert world.abandoned == ["work"]
    assert world.board.ints[board.ABANDONED] == 1
    assert world.turns.running == 0
    assert not world.loop.timers
    world.end(call)  # a week later
    assert world.turns.running == 0
    assert len(world.connection.answers) == 1


def test_the_time_limit_of_a_call_that_waits_is_only_an_answer(world):
    world.wait(1, 2.0)
    world.loop.advance(2.0)
    ((_, reply),) = world.connection.answers
    assert reply["error"]["message"] == "work: timed out before its turn came"


def test_a_deadline_that_has_passed_is_now(world):
    world.wait(1, -5.0)
    world.loop.turn()
    assert world.connection.codes() == [(1, TIMED_OUT)]


def test_a_waiting_call_that_starts_and_blocks_keeps_one_timer(world):
    call = world.wait(1, 2.0)
    call.stop_timer()
    call.greenlet = FakeTaskGreenlet(world, call, 0)
    world.turns.take(call)
    world.limits.keep(call)
    assert len(world.loop.timers) == 1
    world.limits.keep(call)
    assert len(world.loop.timers) == 1


def test_a_call_that_was_answered_needs_no_deadline(world):
    call = make_call(world.connection, 1)
    call.deadline = 1.0
    call.is_answered = True
    world.limits.keep(call)
    assert not world.loop.timers


def test_cancel_answers_now_and_ends_the_task_when_the_loop_turns(world):
    call = world.block(1, 60.0)
    world.limits.cancel(call)
    assert world.connection.codes() == [(1, CANCELLED)]
    assert not call.greenlet.ends, "not from the greenlet that has read the cancel"
    world.loop.turn()
    assert call.greenlet.ends == [(0.0, GreenletExit, True)]
    assert not world.loop.timers


def test_cancel_of_a_task_that_ignores_it_goes_on_as_a_time_limit_does(world):
    call = world.block(1, 60.0, survives=100)
    world.limits.cancel(call)
    world.loop.advance(100)
    moments = [moment for moment, _, _ in call.greenlet.ends]
    assert moments == [0.0, *(CLEANUP_SECONDS + n * KILL_SECONDS for n in range(KILLS))]
    assert world.abandoned == ["work"]
    assert world.connection.codes() == [(1, CANCELLED)]


def test_cancel_of_a_task_that_ends_before_the_loop_turns_throws_nothing(world):
    call = world.block(1, 60.0)
    world.limits.cancel(call)
    world.end(call)
    world.loop.turn()
    assert not call.greenlet.ends


def test_cancel_of_a_waiting_call_is_only_an_answer(world):
    call = world.wait(1, 60.0)
    world.limits.cancel(call)
    assert world.connection.codes() == [(1, CANCELLED)]
    world.loop.advance(60.0)
    assert len(world.connection.answers) == 1
    assert world.loop.next_due() is None


def test_a_log_handler_that_raises_changes_nothing(world):
    """What is to be done is done before it is told."""

    class Broken(logging.Handler):
        def emit(self, record):
            raise RuntimeError("the log is broken")

    handler = Broken()
    logging.getLogger("gtask.tasks").addHandler(handler)
    try:
        call = world.block(1, 2.0, survives=100)
        for _ in range(10):  # gevent's loop goes on after an error in a callback
            with contextlib.suppress(RuntimeError):
                world.loop.advance(5.0)
    finally:
        logging.getLogger("gtask.tasks").removeHandler(handler)
    assert world.connection.codes() == [(1, TIMED_OUT)]
    assert len(call.greenlet.ends) == 1 + KILLS
    assert world.abandoned == ["work"]
    assert world.turns.running == 0
