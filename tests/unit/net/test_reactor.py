"""Greenlets that are used again: what they run, what ends them, and who may start them."""

from __future__ import annotations

import contextvars
import threading

import gevent
import gevent.local
import pytest
from greenlet import GreenletExit, getcurrent

from gtask.net import reactor as reactor_module
from gtask.net.reactor import Reactor, current_reactor
from gtask.patches import leftovers

from ...support.hub import until


@pytest.fixture
def reactor() -> Reactor:
    """One of this hub that no other test has left greenlets in."""
    return Reactor(gevent.get_hub())


def test_there_is_one_for_each_hub():
    mine = current_reactor()
    assert current_reactor() is mine
    assert mine.hub is gevent.get_hub()
    others: list[Reactor] = []

    def look() -> None:
        others.append(current_reactor())
        gevent.get_hub().destroy()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert others[0] is not mine


def test_work_starts_soon_and_never_in_the_caller(reactor):
    ran: list[object] = []
    reactor.start(lambda word: ran.extend((word, getcurrent())), "word")
    assert ran == []
    until(lambda: ran)
    assert ran[0] == "word"
    assert ran[1] not in (getcurrent(), reactor.hub)


def test_a_greenlet_is_used_again(reactor):
    ran: list[object] = []
    for count in (1, 2, 3):
        reactor.start(lambda: ran.append(getcurrent()))
        until(lambda: len(ran) == count)  # noqa: B023
    assert len(set(ran)) == 1
    assert reactor.idle == ran[:1]


def test_work_that_blocks_has_a_greenlet_to_itself(reactor):
    gate = gevent.event.Event()
    order: list[str] = []

    def blocks() -> None:
        gate.wait()
        order.append("blocked")

    reactor.start(blocks)
    reactor.start(order.append, "quick")
    until(lambda: order == ["quick"])
    gate.set()
    until(lambda: order == ["quick", "blocked"])
    assert len(reactor.idle) == 2


@pytest.mark.parametrize("error", [RuntimeError("on purpose"), gevent.Timeout(1), SystemExit(3)])
def test_what_work_raises_is_logged_and_the_greenlet_goes_on(reactor, caplog, error):
    def fail() -> None:
        raise error

    ran: list[object] = []
    reactor.start(fail)
    reactor.start(ran.append, 1)
    until(lambda: ran)
    assert "a callback failed" in caplog.text
    assert type(error).__name__ in caplog.text
    assert len(reactor.idle) == 1


def test_work_that_is_killed_is_no_error(reactor, caplog):
    def killed() -> None:
        raise GreenletExit

    reactor.start(killed)
    until(lambda: len(reactor.idle) == 1)
    assert caplog.text == ""


def test_a_parked_greenlet_that_is_killed_is_not_used_again(reactor):
    reactor.start(lambda: None)
    until(lambda: reactor.idle)
    (parked,) = reactor.idle
    gevent.kill(parked)
    until(lambda: not reactor.idle)
    assert parked.dead
    ran: list[int] = []
    reactor.start(ran.append, 1)
    until(lambda: ran)


def test_no_more_than_so_many_are_kept(reactor, monkeypatch):
    monkeypatch.setattr(reactor_module, "MAX_IDLE", 2)
    gate = gevent.event.Event()
    for _ in range(5):
        reactor.start(gate.wait)
    gevent.sleep(0)
    gate.set()
    until(lambda: len(reactor.idle) == 2)


def test_what_one_piece_of_work_leaves_is_not_seen_by_the_next(reactor):
    local, variable = gevent.local.local(), contextvars.ContextVar("variable", default=None)
    seen = []

    def work(touch):
        seen.append((getattr(local, "x", None), variable.get(), getcurrent()))
        variable.set(1)
        if touch:
            local.x = 1

    for count, touch in enumerate((True, True, False), 1):
        reactor.start(work, touch)
        until(lambda: len(seen) == count)  # noqa: B023
    assert [each[:2] for each in seen] == [(None, None)] * 3
    assert len({each[2] for each in seen}) == 3
    # Who only looks at another thread-local has touched it, too; context variables are just forgotten.
    assert reactor.idle == []
    for count in (4, 5):
        reactor.start(lambda: seen.append((variable.get(), variable.set(2), getcurrent())))
        until(lambda: len(seen) == count)  # noqa: B023
    assert seen[3][0] is seen[4][0] is None
    assert seen[3][2] is seen[4][2]


def test_a_forked_child_ends_with_the_work_that_has_forked(reactor, monkeypatch):
    ended = []
    monkeypatch.setattr(leftovers, "end_process", ended.append)
    reactor.start(lambda: getcurrent().__dict__.update({leftovers.FORKED: True}))
    until(lambda: ended)
    assert ended == [None]
