"""The table of docs/queue.md, and that no verdict leaves it."""

from __future__ import annotations

import itertools

import pytest

from gtask.queue.states import (
    TRANSITIONS,
    Event,
    Facts,
    State,
    retry_delay_ms,
    unknown_delay_ms,
    verdict,
)

ENDS = [event for event, (before, _) in TRANSITIONS.items() if State.RUNNING in before]


@pytest.mark.parametrize("event", ENDS)
def test_every_verdict_is_in_the_table(event):
    _, after = TRANSITIONS[event]
    for attempt, retries, interruptions, is_cancelled, in_grace in itertools.product(
        (1, 2, 5, 6), (0, 1, 7), (0, 18, 19), (False, True), (False, True)
    ):
        facts = Facts(attempt, retries, interruptions, is_cancelled, in_grace)
        assert verdict(event, facts) in after


def test_every_event_is_in_the_table():
    assert TRANSITIONS.keys() == set(Event)


def test_delays_double_up_to_the_most():
    delays = [retry_delay_ms(attempt, 5000, 600_000, draw=1.0) for attempt in range(1, 10)]
    assert delays == [5000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000, 600_000, 600_000]
    assert retry_delay_ms(1000, 5000, 600_000, draw=1.0) == 600_000
    assert 0 <= retry_delay_ms(3, 5000, 600_000) <= 20_000


def test_unknown_functions_wait_between_one_second_and_a_minute():
    assert [unknown_delay_ms(ms) for ms in (0, 5000, 500_000)] == [1000, 5000, 60_000]
