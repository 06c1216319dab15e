"""Times are kept in order, and dead entries do not pile up."""

from __future__ import annotations

from time import monotonic
from typing import Any

import gevent

from gtask.client.deadlines import SLACK, Deadlines
from gtask.net.reactor import current_reactor


def test_looks_at_each_living_call_at_its_time_in_order():
    seen: list[Any] = []
    calls = {1: "slow", 2: "fast", 3: "gone"}
    deadlines = Deadlines(current_reactor(), calls, lambda call, now: seen.append((call, now)))
    start = monotonic()
    for id, after in ((1, 0.04), (2, 0.02), (3, 0.01)):
        deadlines.add(start + after, id)
    del calls[3]
    gevent.sleep(0.06)
    assert [call for call, _ in seen] == ["fast", "slow"]
    assert all(now >= start + after for (_, now), after in zip(seen, (0.02, 0.04), strict=True))


def test_an_entry_added_while_looking_is_looked_at():
    calls = {1: 1}
    seen = []

    def look(call, now):
        seen.append(call)
        if len(seen) < 3:
            deadlines.add(now + 0.005, 1)

    deadlines = Deadlines(current_reactor(), calls, look)
    deadlines.add(monotonic(), 1)
    gevent.sleep(0.05)
    assert seen == [1, 1, 1]


def test_calls_that_ended_leave_nothing_behind():
    calls: dict[int, Any] = {}
    deadlines = Deadlines(current_reactor(), calls, lambda call, now: None)
    for id in range(10_000):
        calls[id] = id
        deadlines.add(monotonic() + 60, id)
        del calls[id]
    assert len(deadlines._heap) <= SLACK + 2
    deadlines.close()
