"""What fails at once must not look idle."""

from __future__ import annotations

import pytest

from gtask.client.record import HALF_LIFE, Record
from gtask.errors import Overloaded, TaskFailed, UnknownTask


def record_of(*errors) -> Record:
    record = Record()
    for error in errors:
        record.note(error, 100.0)
    return record


def test_results_leave_no_record():
    assert record_of(None, None).is_clean


@pytest.mark.parametrize("error", [Overloaded("full"), UnknownTask("f")])
def test_one_that_refuses_counts_as_more_loaded_than_all_others(error):
    record = record_of(*[error] * 10)
    assert record.score(load=0, usual=20, now=100.0) > 100
    assert not record.is_clean


def test_one_whose_tasks_fail_counts_as_if_they_took_as_long_as_those_of_others():
    record = record_of(*[TaskFailed("ValueError")] * 20)
    assert record.score(load=0, usual=20, now=100.0) == pytest.approx(20, abs=1)
    assert record.score(load=25, usual=20, now=100.0) == pytest.approx(25, abs=1)


def test_it_is_forgotten_with_time_and_by_results():
    record = record_of(*[Overloaded("full")] * 10)
    before = record.score(load=0, usual=20, now=100.0)
    assert record.score(load=0, usual=20, now=100.0 + HALF_LIFE) < before / 2
    record.score(load=0, usual=20, now=100.0 + 10 * HALF_LIFE)
    assert record.is_clean
    record = record_of(Overloaded("full"), *[None] * 20)
    assert record.is_clean
