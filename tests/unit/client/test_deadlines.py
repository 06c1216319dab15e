"""Times are kept in order, and dead entries do not pile up."""

from __future__ import annotations

from typing import Any

import pytest

from gtask.client.deadlines import SLACK, Deadlines


@pytest.fixture
def world(make_world):
    return make_world()


def test_checks_each_living_call_at_its_time_in_order(world):
    seen: list[Any] = []
    calls = {1: "slow", 2: "fast", 3: "gone"}
    deadlines = Deadlines(world.pool.reactor, calls, lambda call, now: seen.append((call, now)))
    start = world.now
    for id, after in ((1, 0.04), (2, 0.02), (3, 0.01)):
        deadlines.add(start + after, id)
    del calls[3]
    world.wait(0.06)
    assert [call for call, _ in seen] == ["fast", "slow"]
    assert all(now >= start + after for (_, now), after in zip(seen, (0.02, 0.04), strict=True))


def test_an_entry_added_while_checking_is_checked(world):
    calls = {1: 1}
    seen = []

    def check(call, now):
        seen.append(call)
        if len(seen) < 3:
            deadlines.add(now + 0.005, 1)

    deadlines = Deadlines(world.pool.reactor, calls, check)
    deadlines.add(world.now, 1)
    world.wait(0.05)
    assert seen == [1, 1, 1]


def test_calls_that_ended_leave_nothing_behind(world):
    calls: dict[int, Any] = {}
    deadlines = Deadlines(world.pool.reactor, calls, lambda call, now: None)
    for id in range(10_000):
        calls[id] = id
        deadlines.add(world.now + 60, id)
        del calls[id]
    assert len(deadlines._heap) <= SLACK + 2
    deadlines.close()
