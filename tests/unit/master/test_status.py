from __future__ import annotations

import pytest

from gtask import scoreboard as board
from gtask.master.plans import Plan
from gtask.master.roster import Roster
from gtask.master.slots import Phase
from gtask.master.status import Rates, Status, last_sign
from gtask.scoreboard import Scoreboard, WorkerState


class OneMold:
    """What `Status` needs of a mold."""

    def __init__(self) -> None:
        self.scoreboards = {"T": Scoreboard(8)}
        self.functions = {"T": ["add", "send_mail"]}


def status_of_one() -> tuple[Status, Roster, Scoreboard]:
    roster, mold = Roster(10), OneMold()
    roster.loaded(1, {"T": Plan(1)})
    roster.decide(10.0)
    roster.spawned(1, "T", 0, 4_000_000, 10.0)  # an id that no process has
    roster.ready(4_000_000, 10.0)
    return Status(roster, {1: mold}), roster, mold.scoreboards["T"]


def test_the_task_on_the_cpu_comes_before_the_one_that_waits_longest():
    status, _, scoreboard = status_of_one()
    scoreboard.ints[board.OLDEST], scoreboard.floats[board.OLDEST_SINCE] = 1, 12.0
    (process,) = status.service("T", 20.0)["processes"]
    assert (process["function"], process["busy_seconds"]) == ("add", 8.0)
    scoreboard.ints[board.EXECUTING], scoreboard.floats[board.EXECUTING_SINCE] = 2, 19.5
    (process,) = status.service("T", 20.0)["processes"]
    assert (process["function"], process["busy_seconds"]) == ("send_mail", 0.5)
    assert process["running"] == 1


def test_what_the_dead_did_still_counts_and_their_row_is_free():
    status, roster, scoreboard = status_of_one()
    scoreboard.ints[board.DONE] = 7
    (process,) = roster.processes
    status.ended(process)
    roster.exited(process.pid, 9, 20.0)
    service = status.service("T", 20.0)
    assert (service["done"], service["processes"]) == (7, [])
    assert scoreboard.ints[board.DONE] == 0
    assert service["restarts"] == {"killed by SIGKILL, perhaps out of memory": 1}


def test_summary():
    status, roster, scoreboard = status_of_one()
    scoreboard.ints[board.CONNECTIONS] = 3
    assert roster.processes[0].phase == Phase.READY
    assert status.summary() == "1 workers, 3 connections, 0 tasks running"


def test_rates_are_of_the_last_seconds():
    rates = Rates()
    assert rates.rate(1, 10, 5.0) == 0
    for second in range(20):
        rates.sample({1: 100 * second}, float(second))
    assert rates.rate(1, 2000, 20.0) == 100.0
    rates.sample({}, 20.0)
    assert rates.rate(1, 2000, 21.0) == 0, "it has ended"


@pytest.mark.parametrize(
    ("heartbeat", "executing_since", "sign"),
    [(10.0, 0.0, 11.0), (10.0, 10.2, 10.2), (10.5, 10.2, 10.5)],
)
def test_last_sign(heartbeat: float, executing_since: float, sign: float):
    assert last_sign(heartbeat, executing_since) == sign


def test_a_worker_that_drains_accepts_until_its_row_says_otherwise():
    status, roster, scoreboard = status_of_one()
    scoreboard.ints[board.STATE] = WorkerState.READY
    assert not status.is_drainer_accepting
    roster.drain(20.0)
    assert status.is_drainer_accepting
    scoreboard.ints[board.STATE] = WorkerState.DRAINING
    assert not status.is_drainer_accepting


def test_services_with_a_ready_worker_whose_loop_turns():
    status, roster, _ = status_of_one()
    assert status.turning(9.9) == {"T"}
    assert status.turning(10.0) == set()
    roster.beat(4_000_000, 12.0)
    assert status.turning(11.0) == {"T"}
    roster.drain(20.0)
    assert status.turning(11.0) == set()
