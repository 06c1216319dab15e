"""Which world code runs in."""

from __future__ import annotations

import time

import gevent
from gevent.threadpool import ThreadPool

from gtask.patches.worlds import by_thread, may_wait, original, put

from ...support.hub import until


def test_a_function_is_the_threads():
    choose = by_thread(lambda: "green", lambda: "native")
    gevent.get_hub()
    threads = ThreadPool(1)
    assert (choose(), threads.spawn(choose).get()) == ("green", "native")
    assert (may_wait(), threads.spawn(may_wait).get()) == (True, False)
    threads.kill()
    seen = []
    gevent.get_hub().loop.run_callback(lambda: seen.append(may_wait()))
    until(lambda: seen)
    assert seen == [False]


def test_names_are_found_and_replaced():
    class Owner:
        x = 1

    put(Owner, x=2, y=3)
    assert (Owner.x, Owner.y) == (2, 3)
    assert original("time", "monotonic") is time.monotonic
