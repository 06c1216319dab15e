"""The wait for a request's head: over in time, out of time, given up."""

from __future__ import annotations

import gevent
import gevent.event
import pytest

from gtask.server.web.limits import HeadWait

LONG = 60.0


def test_it_is_found_while_it_lasts_and_leaves_what_follows_alone():
    waiting: set[HeadWait] = set()
    with HeadWait(waiting, 0.01) as wait:
        assert waiting == {wait}
        wait.end()
        assert waiting == set()
        gevent.sleep(0.03)  # longer than the limit, which has ended
    assert waiting == set()


def test_its_time_limit_ends_the_block_only():
    waiting: set[HeadWait] = set()
    with HeadWait(waiting, 0.01):
        gevent.sleep(LONG)
        pytest.fail("the time limit is over")
    assert waiting == set()


def test_another_time_limit_is_not_taken_for_its_own():
    waiting: set[HeadWait] = set()
    other = gevent.Timeout(0.01)
    with pytest.raises(gevent.Timeout) as raised, other, HeadWait(waiting, LONG):
        gevent.sleep(LONG)
    assert raised.value is other
    assert waiting == set()


def test_an_error_in_the_block_is_not_swallowed():
    with pytest.raises(ValueError, match="on purpose"), HeadWait(set(), LONG):
        raise ValueError("on purpose")


def test_it_is_given_up_from_another_greenlet():
    waiting: set[HeadWait] = set()
    began = gevent.event.Event()

    def wait() -> str:
        with HeadWait(waiting, LONG):
            began.set()
            gevent.sleep(LONG)
        return "went on"

    greenlet = gevent.spawn(wait)
    assert began.wait(5)
    (only,) = waiting
    only.give_up()
    assert greenlet.get(timeout=5) == "went on"
    assert waiting == set()
