"""A worker's row on the scoreboard: several workers are several writers of one board."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtask import scoreboard as board
from gtask.scoreboard import ABSENT, Scoreboard, WorkerState
from gtask.server import stats as module
from gtask.server.stats import (
    CONNECTION_LOAD,
    FRESH_LOAD,
    MAX_LOAD,
    RUNNING_LOAD,
    SINGLE_LOAD,
    WorkerStats,
)

from ...support.loop import Clock


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def workers(count: int, capacity: int = 8) -> tuple[Scoreboard, list[WorkerStats]]:
    scoreboard = Scoreboard(capacity)
    made = [WorkerStats(scoreboard) for _ in range(count)]
    for row, stats in enumerate(made):
        stats.boot(row, 4000 + row)
        stats.state(WorkerState.READY)
    return scoreboard, made


def cell(scoreboard: Scoreboard, row: int, number: int) -> int:
    return scoreboard.ints[row * board.CELLS + number]


def moment(scoreboard: Scoreboard, row: int, number: int) -> float:
    return scoreboard.floats[row * board.CELLS + number]


def test_a_worker_that_boots_is_on_the_board_but_compared_with_nobody(clock):
    scoreboard = Scoreboard(4)
    stats = WorkerStats(scoreboard)
    stats.boot(2, 4711)
    assert cell(scoreboard, 2, board.PID) == 4711
    assert cell(scoreboard, 2, board.STATE) == WorkerState.BOOTING
    assert moment(scoreboard, 2, board.STARTED) == clock.now
    assert moment(scoreboard, 2, board.HEARTBEAT) == clock.now
    assert list(scoreboard.loads) == [ABSENT] * 4
    stats.accepted()
    assert scoreboard.loads[2] == ABSENT


def test_each_writes_its_own_row_only(clock):
    scoreboard, (first, second) = workers(2)
    second.accepted()
    second.failed()
    second.failed()
    second.abandoned()
    second.refused()
    second.closed(30, 4)
    assert {c: cell(scoreboard, 1, c) for c in (board.ACCEPTED, board.FAILED)} == {
        board.ACCEPTED: 1,
        board.FAILED: 2,
    }
    assert cell(scoreboard, 1, board.ABANDONED) == cell(scoreboard, 1, board.REFUSED) == 1
    assert cell(scoreboard, 1, board.BYTES_READ) == 30
    assert cell(scoreboard, 1, board.BYTES_WRITTEN) == 4
    assert cell(scoreboard, 1, board.CONNECTIONS) == second.connections == 0
    for number in (board.ACCEPTED, board.FAILED, board.ABANDONED, board.BYTES_READ):
        assert cell(scoreboard, 0, number) == 0
    assert first.excess(2) == (0, 0)


def test_the_load_is_connections_and_blocked_tasks(clock):
    scoreboard, (first, second) = workers(2)
    first.accepted()
    first.accepted()
    first.set_running(3)
    load = 2 * (FRESH_LOAD + CONNECTION_LOAD) + 3 * RUNNING_LOAD
    assert list(scoreboard.loads[:2]) == [load, 0]
    assert cell(scoreboard, 0, board.RUNNING) == 3
    assert first.excess(2) == (load, 0)
    assert second.excess(2) == (0, 0)
    second.set_running(4)
    assert first.excess(2) == (load - 4 * RUNNING_LOAD, 4 * RUNNING_LOAD)
    first.answered()
    assert scoreboard.loads[0] == load - FRESH_LOAD
    first.closed(0, 0)
    first.closed(0, 0, was_fresh=False)
    assert scoreboard.loads[0] == 3 * RUNNING_LOAD


def test_where_one_task_runs_at_a_time_connections_that_wait_for_nothing_hardly_count(clock):
    scoreboard = Scoreboard(1)
    stats = WorkerStats(scoreboard, runs_one_at_a_time=True)
    stats.boot(0, 1)
    stats.state(WorkerState.READY)
    for _ in range(100):
        stats.accepted()
        stats.answered()
    assert scoreboard.loads[0] == SINGLE_LOAD - 1
    stats.set_running(1)
    assert scoreboard.loads[0] == 2 * SINGLE_LOAD - 1


def test_a_load_beyond_what_its_cell_holds_is_the_greatest_that_it_holds(clock):
    scoreboard, (first, _) = workers(2)
    first.set_running(70_000)
    assert scoreboard.loads[0] == MAX_LOAD < ABSENT
    first.set_running(1)
    assert scoreboard.loads[0] == RUNNING_LOAD


@pytest.mark.parametrize("state", [WorkerState.DRAINING, WorkerState.BOOTING])
def test_only_a_ready_worker_is_compared(clock, state):
    scoreboard, (first, second) = workers(2)
    first.set_running(9)
    load = 9 * RUNNING_LOAD
    assert first.excess(2) == (load, 0)
    second.state(state)
    second.accepted()
    assert scoreboard.loads[1] == ABSENT
    assert first.excess(2) == (0, load)
    assert first.siblings() == 1


def test_a_change_of_the_load_is_told_while_somebody_wants_to_know(clock):
    _, (stats, _) = workers(2)
    loads = []
    stats.on_change = lambda: loads.append(stats.connections + stats.running)
    stats.accepted()
    stats.set_running(2)
    stats.closed(0, 0)
    assert loads == [1, 3, 2]
    stats.on_change = None
    stats.accepted()
    assert loads == [1, 3, 2]


@example([300, 256])  # its low byte is that of 0
@given(st.lists(st.one_of(st.integers(0, 700), st.just(ABSENT)), min_size=1, max_size=12))
def test_the_smallest_load_and_the_siblings_are_found(loads):
    scoreboard = Scoreboard(16)
    stats = WorkerStats(scoreboard)
    stats.boot(0, 1)
    stats.state(WorkerState.READY)
    stats.set_running(loads[0] % ABSENT // RUNNING_LOAD)
    for row, load in enumerate(loads[1:], 1):
        scoreboard.loads[row] = load
    mine = min(MAX_LOAD, loads[0] % ABSENT // RUNNING_LOAD * RUNNING_LOAD)
    least = min([mine, *loads[1:]])
    assert stats.excess(len(loads)) == (mine - least, least)
    there = [row for row, load in enumerate(scoreboard.loads) if load != ABSENT]
    assert stats.siblings() == there[-1] + 1


def test_a_heartbeat_tells_the_moment_and_the_task_that_has_run_longest(clock):
    scoreboard, (stats, _) = workers(2)
    clock.now += 0.25
    stats.executing[0] = 7
    stats.beat(3, 990.0)
    assert cell(scoreboard, 0, board.EXECUTING) == 0, "the loop has the CPU"
    assert cell(scoreboard, 0, board.OLDEST) == 3
    assert moment(scoreboard, 0, board.OLDEST_SINCE) == 990.0
    assert moment(scoreboard, 0, board.HEARTBEAT) == clock.now


def test_what_has_the_cpu_and_since_when(clock):
    scoreboard, (stats, _) = workers(2)
    stats.enter(clock.now)
    stats.number = stats.executing[0] = 2
    stats.done += 1
    assert cell(scoreboard, 0, board.EXECUTING) == 2
    assert moment(scoreboard, 0, board.EXECUTING_SINCE) == clock.now
    stats.enter(clock.now + module.EXACT_SECONDS / 2)
    assert moment(scoreboard, 0, board.EXECUTING_SINCE) == clock.now, "that is exact enough"
    stats.enter(clock.now + 2)
    assert moment(scoreboard, 0, board.EXECUTING_SINCE) == clock.now + 2
    assert cell(scoreboard, 0, board.DONE) == 0
    stats.back_in_loop()
    assert cell(scoreboard, 0, board.EXECUTING) == stats.number == 0
    assert cell(scoreboard, 0, board.DONE) == 1
