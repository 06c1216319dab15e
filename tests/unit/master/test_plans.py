from __future__ import annotations

import pytest

from gtask.master.plans import Plan, PlannedGeneration


@pytest.mark.parametrize("count", [1, 2, 7, 100, 1000])
def test_there_are_rows_for_all_and_for_those_that_drain_and_that_boot(count: int):
    plan = Plan(count, rows=max(256, 4 * count)).resized(10**6)
    assert plan.count >= count
    assert plan.count + plan.most_draining + plan.surge <= plan.rows


def test_more_and_fewer_but_never_none():
    plan = Plan(3, 2.0, "text://h:1", 256)
    assert plan.resized(+2) == Plan(5, 2.0, "text://h:1", 256)
    assert plan.resized(-10).count == 1
    assert Plan(300, rows=256).resized(+1).count == 300, "it does not shrink by that"


def test_a_generation_serves_all_when_each_service_has_served():
    generation = PlannedGeneration(1, {"A": Plan(1), "B": Plan(1)})
    assert not generation.serves_all
    generation.served |= {"A", "B"}
    assert generation.serves_all
