from __future__ import annotations

from gtask.master.plans import Plan
from gtask.master.slots import Phase, Slot, Slots, backoff_seconds

PLAN = Plan(3, rows=4)


def test_backoff_is_bounded():
    assert backoff_seconds(10**6) == 5.0


def test_the_lowest_free_row_is_taken_again_by_generation_and_service():
    slots = Slots()
    first, second, third = (slots.add(1, "T", worker_id, PLAN, 0.0) for worker_id in range(3))
    assert [each.row for each in (first, second, third)] == [0, 1, 2]
    assert slots.add(2, "T", 0, PLAN, 0.0).row == 0
    assert slots.add(1, "W", 0, PLAN, 0.0).row == 0
    slots.remove(second)
    assert slots.add(1, "T", 1, PLAN, 0.0).row == 1


def test_without_a_free_row_there_is_no_process():
    slots = Slots()
    processes = [slots.add(1, "T", 0, PLAN, 0.0) for _ in range(PLAN.rows)]
    assert slots.add(1, "T", 1, PLAN, 0.0) is None
    slots.vacate(processes[2])
    assert slots.draining(1, "T") == 1
    assert slots.draining(2, "T") == slots.draining(1, "W") == 0
    assert slots.add(1, "T", 1, PLAN, 0.0) is None, "its row is read until it has ended"
    slots.remove(processes[2])
    assert slots.add(1, "T", 1, PLAN, 0.0).row == 2


def test_a_process_is_found_by_row_and_then_by_pid():
    slots = Slots()
    process = slots.add(1, "T", 0, PLAN, 0.0)
    assert slots.at(1, "T", 0) is process
    assert slots.find(0) is None
    slots.forked(process, 77, 1.0)
    assert process.since == 1.0
    assert slots.find(77) is process
    slots.remove(process)
    assert slots.find(77) is slots.at(1, "T", 0) is None


def test_what_drains_has_left_its_slot_but_lives():
    slots = Slots()
    process = slots.add(1, "T", 0, PLAN, 0.0)
    slots.vacate(process)
    slots.vacate(process)
    assert process.phase == Phase.DRAINING
    assert slots.processes == [process]
    assert slots["T", 0].processes == []


def test_the_one_that_stays_is_of_the_generation_and_not_recycled():
    slots = Slots()
    old, new = slots.add(1, "T", 0, PLAN, 0.0), slots.add(2, "T", 0, PLAN, 0.0)
    slot = slots["T", 0]
    assert slot.staying(1) is old
    assert slot.staying(2) is new
    assert slot.has_booting_successor
    new.phase = Phase.READY
    assert slot.is_served(2)
    assert not slot.has_booting_successor
    new.recycled_for = "max_tasks: 1"
    assert slot.staying(2) is None
    assert not slot.is_served(2)


def test_quick_deaths_put_the_next_try_off_until_one_lived():
    slot = Slot()
    assert [slot.has_died(is_quick=True, now=10.0) for _ in range(3)] == [0.0, 0.1, 0.2]
    assert slot.not_before == 10.2
    assert slot.is_served(1), "as well as it can be"
    assert slot.has_died(is_quick=False, now=20.0) == 0.0
    assert not slot.is_served(1)


def test_all_slots_that_are_wanted_exist():
    wanted = Slots().wanted({"T": Plan(2), "W": Plan(1)})
    assert [(service, worker_id) for service, worker_id, _ in wanted] == [
        ("T", 0),
        ("T", 1),
        ("W", 0),
    ]
