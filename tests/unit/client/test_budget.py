"""Repetitions are a share of the calls, and some are always there."""

from __future__ import annotations

import pytest

from gtask.client.budget import PER_SECOND, RESERVE, SHARE, RetryBudget


def spend_all(budget: RetryBudget, calls: int, now: float) -> int:
    count = 0
    while budget.spend(calls, now):
        count += 1
    return count


def test_a_reserve_is_there_at_once_and_saved_up_again():
    budget = RetryBudget(10.0)
    assert spend_all(budget, 0, 10.0) == RESERVE
    assert spend_all(budget, 0, 11.0) == PER_SECOND
    assert spend_all(budget, 0, 1000.0) == RESERVE


def test_calls_earn_a_share_of_repetitions():
    budget = RetryBudget(10.0)
    spend_all(budget, 0, 10.0)
    assert spend_all(budget, 1000, 10.0) == pytest.approx(SHARE * 1000, abs=1)


def test_an_outage_of_hours_is_multiplied_by_little():
    budget = RetryBudget(0.0)
    spent = sum(spend_all(budget, calls, calls / 1000) for calls in range(0, 1_000_000, 500))
    assert spent <= RESERVE + PER_SECOND * 1000 + SHARE * 1_000_000


def test_what_was_earned_long_ago_is_forgotten():
    budget = RetryBudget(0.0)
    a_thousand_lately = 1000  # of a million in 10,000 s, as lately is 10 s
    assert spend_all(budget, 10**6, 10_000.0) <= RESERVE + SHARE * a_thousand_lately + 1


def test_a_clock_that_stands_still_or_goes_back_does_no_harm():
    budget = RetryBudget(10.0)
    assert budget.spend(1, 10.0)
    assert budget.spend(2, 9.0)
