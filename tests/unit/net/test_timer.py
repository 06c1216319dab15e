"""`Timer`: called once or again and again, in greenlets, until deleted."""

from __future__ import annotations

from contextvars import ContextVar

import gevent
import pytest

from gtask.net.reactor import current_reactor
from gtask.net.timer import Timer


@pytest.fixture(autouse=True)
def _no_timer_left() -> None:
    yield
    Timer.delete_all()


def test_a_timer_that_persists_is_called_until_it_is_deleted() -> None:
    calls: list[str] = []
    id = Timer.add(0.01, calls.append, "tick")
    with gevent.Timeout(5):
        while len(calls) < 3:
            gevent.sleep(0.005)
    assert Timer.delete(id)
    assert not Timer.delete(id)
    count = len(calls)
    gevent.sleep(0.05)
    assert len(calls) == count


def test_one_that_does_not_is_called_once() -> None:
    calls: list[int] = []
    id = Timer.add(0.01, calls.append, 1, persistent=False)
    gevent.sleep(0.06)
    assert calls == [1]
    assert not Timer.delete(id)


def test_a_call_may_block_and_skips_the_ones_in_its_time() -> None:
    running = [0]
    most = [0]

    def slow() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        gevent.sleep(0.04)
        running[0] -= 1

    Timer.add(0.01, slow)
    gevent.sleep(0.15)
    assert most == [1]


def test_an_exception_is_logged_and_the_timer_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("on purpose")

    Timer.add(0.01, fail)
    with gevent.Timeout(5):
        while len(calls) < 3:
            gevent.sleep(0.005)
    assert "RuntimeError: on purpose" in caplog.text


@pytest.mark.parametrize("interval", [0, -1, float("nan")])
def test_an_interval_must_be_above_zero(interval: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Timer.add(interval, print)


def test_it_runs_in_the_context_of_who_added_it_and_leaves_nothing_to_the_next():
    variable = ContextVar("who", default="nobody")
    seen = []

    def note(name):
        seen.append((name, variable.get()))
        variable.set("what a timer has set")

    def add(name):
        variable.set(name)
        Timer.add(0.005, note, name, persistent=False)

    for name in ("a", "b"):
        gevent.spawn(add, name).join()
    id = Timer.add(0.005, note, "again")
    with gevent.Timeout(5):
        while len(seen) < 5:
            gevent.sleep(0.005)
    Timer.delete(id)
    assert set(seen) == {("a", "a"), ("b", "b"), ("again", "nobody")}


def test_a_greenlet_that_is_used_again_has_forgotten_what_was_set_in_it():
    variable = ContextVar("who", default="nobody")
    seen = []

    def note():
        seen.append(variable.get())
        variable.set("a stranger")

    reactor = current_reactor()
    for _ in range(3):
        reactor.start(note)
        gevent.sleep(0)
    assert seen == ["nobody"] * 3
