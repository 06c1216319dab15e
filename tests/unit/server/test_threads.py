"""The threads of blocking tasks: who has one, who waits for one, and who keeps one for ever."""

from __future__ import annotations

import contextvars
import os
import threading

import gevent
import pytest
from gevent import monkey
from greenlet import getcurrent

from gtask import scoreboard as board
from gtask.patches import leftovers
from gtask.scoreboard import Scoreboard
from gtask.server import threads as module
from gtask.server.stats import WorkerStats
from gtask.server.threads import TaskThreads

from ...support.hub import until

native_id = monkey.get_original("_thread", "get_ident")
variable = contextvars.ContextVar("variable", default="unset")


class Pool:
    """Some threads, and what they have told.

    Attributes:
        gate: jobs that `hold` wait for it, natively.
    """

    def __init__(self, size=2):
        self.board = Scoreboard(1)
        stats = WorkerStats(self.board)
        stats.boot(0, os.getpid())
        self.threads = TaskThreads(size, gevent.get_hub(), stats)
        self.stuck = []
        self.threads.on_stuck = self.stuck.append
        self.gate = threading.Event()

    def run(self, function, context=None):
        return self.threads.run(function, context or contextvars.Context())

    def hold(self, result=None):
        assert self.gate.wait(20)
        return result

    def start(self, function):
        return gevent.spawn(self.run, function)

    @property
    def told(self):
        return tuple(self.board.ints[cell] for cell in (board.THREADS, board.STUCK))

    @property
    def counts(self):
        return self.threads.running, self.threads.stuck


@pytest.fixture
def pool():
    made = Pool()
    yield made
    made.gate.set()
    until(lambda: made.counts == (0, 0))


def test_it_gives_what_the_function_gives(pool):
    assert pool.run(lambda: 7) == 7
    assert pool.run(native_id) != native_id()
    with pytest.raises(ZeroDivisionError):
        pool.run(lambda: 1 / 0)
    with pytest.raises(SystemExit):
        pool.run(lambda: exit(3))
    assert pool.counts == (0, 0)


def test_the_hub_goes_on_and_it_is_told_how_many_run(pool):
    greenlets = [pool.start(pool.hold) for _ in range(2)]
    until(lambda: pool.counts == (2, 0))
    assert pool.told == (2, 0)
    pool.gate.set()
    gevent.joinall(greenlets, timeout=5)
    until(lambda: pool.told == (0, 0))


def test_a_call_that_finds_no_thread_waits(pool):
    first = [pool.start(pool.hold) for _ in range(2)]
    until(lambda: pool.counts == (2, 0))
    late = pool.start(lambda: "late")
    leaving = pool.start(lambda: "never")
    gevent.sleep(0.02)
    assert not late.ready()
    leaving.kill(ValueError)
    assert isinstance(leaving.exception, ValueError)
    assert pool.counts == (2, 0)
    pool.gate.set()
    assert late.get(timeout=5) == "late"
    gevent.joinall(first, timeout=5)


def test_a_thread_whose_call_has_ended_is_stuck_until_it_ends_too(pool):
    call = pool.start(pool.hold)
    until(lambda: pool.counts == (1, 0))
    call.kill(ValueError)
    assert pool.counts == (1, 1)
    assert pool.told == (1, 1)
    assert pool.stuck == [1]  # half of two
    assert pool.run(lambda: "others go on") == "others go on"
    pool.gate.set()
    until(lambda: pool.counts == (0, 0))
    assert pool.told == (0, 0)


@pytest.mark.parametrize("when", ["before", "while it waits"])
def test_where_all_are_stuck_nobody_waits_in_vain(pool, monkeypatch, when):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    holding = [pool.start(pool.hold) for _ in range(2)]
    until(lambda: pool.counts == (2, 0))
    late = pool.start(lambda: "never") if when == "while it waits" else None
    gevent.sleep(0)
    assert not pool.threads.are_used_up
    for call in holding:
        call.kill(ValueError)
    assert pool.threads.are_used_up
    late = late or pool.start(lambda: "never")
    with pytest.raises(module.NoThread):
        late.get(timeout=5)


def test_few_that_are_stuck_are_no_reason_to_complain():
    pool = Pool(size=3)
    calls = [pool.start(pool.hold) for _ in range(2)]
    until(lambda: pool.counts == (2, 0))
    for call in calls:
        call.kill(ValueError)
    assert pool.stuck == [2]
    pool.threads.on_stuck = None
    call = pool.start(pool.hold)
    until(lambda: pool.counts == (3, 2))
    call.kill(ValueError)
    pool.gate.set()
    until(lambda: pool.counts == (0, 0))


def test_where_no_thread_can_be_started_the_call_fails_and_holds_no_place(pool, monkeypatch):
    class Refusing:
        def __init__(self, *_):
            pass

        def spawn(self, *_):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "ThreadPool", Refusing)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            pool.run(lambda: 1)
    assert pool.counts == (0, 0)


def test_each_call_has_a_greenlet_and_a_context_of_its_own(pool):
    seen = []

    def look():
        seen.append((getcurrent(), variable.get(), native_id()))
        variable.set("set")

    context = contextvars.Context()
    context.run(variable.set, "given")
    pool.run(look, context)
    pool.run(look)
    assert seen[0][0] is not seen[1][0]
    assert [each[1] for each in seen] == ["given", "unset"]
    assert variable.get() == "unset"


def test_a_hub_that_a_call_has_made_serves_the_next_call_in_its_thread():
    pool = Pool(size=1)
    for _ in range(3):
        assert pool.run(lambda: gevent.spawn(lambda: gevent.sleep(0.001) or 5).get()) == 5
        with pytest.raises(gevent.exceptions.LoopExit):
            pool.run(lambda: gevent.event.Event().wait())


def test_a_child_that_a_call_has_forked_ends_with_it(pool, monkeypatch):
    ended = []
    monkeypatch.setattr(leftovers, "end_process", ended.append)

    def fork():
        getcurrent().__dict__[leftovers.FORKED] = True
        raise LookupError

    with pytest.raises(LookupError):
        pool.run(fork)
    assert isinstance(ended[0], LookupError)
