"""How the program stops, as histories on a fake clock."""

from __future__ import annotations

import math
import signal

import pytest

from gtask.master.actions import End, Reply, Say, StopAccepting, StopServing, StopWorkers
from gtask.master.stop import Stage, Stop

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP


class Caller:
    """A client of the control socket."""

    def reply(self, **answer: object) -> None:
        raise AssertionError("the master does that")


def progress(
    stop: Stop, now: float, accepting: bool = False, left: bool = False, cut: bool = False
):
    return stop.progressed(
        now, is_drainer_accepting=accepting, is_anybody_left=left, was_cut_off=cut
    )


def test_nothing_happens_before_it_is_wanted():
    stop = Stop(1)
    assert progress(stop, 0.0) == []
    assert not stop.is_under_way
    assert stop.wake_at(0.0) == math.inf


def test_a_clean_stop():
    stop = Stop(1)
    assert stop.wanted(TERM, 10.0) == [Say("SIGTERM: draining"), StopServing(), StopWorkers(1)]
    assert stop.is_under_way
    assert progress(stop, 10.1, accepting=True, left=True) == []
    assert stop.wake_at(10.1) == pytest.approx(10.11)
    assert progress(stop, 10.2, left=True) == [StopAccepting()]
    assert stop.wake_at(10.2) == math.inf
    assert progress(stop, 99.0, left=True) == []
    assert progress(stop, 99.0) == [Say("stopped"), End()]
    assert stop.exit_code == 0


def test_a_stuck_worker_does_not_keep_a_port_open():
    stop = Stop(1)
    stop.wanted(TERM, 10.0)
    assert progress(stop, 10.4, accepting=True, left=True) == []
    assert progress(stop, 10.5, accepting=True, left=True) == [StopAccepting()]
    assert progress(stop, 10.6, accepting=True, left=True) == []


def test_asked_again_it_has_less_patience():
    stop = Stop(1)
    stop.wanted(TERM, 10.0)
    assert stop.wanted(TERM, 11.0) == [Say("SIGTERM: stopping now"), StopWorkers(2)]
    assert stop.wanted(HUP, 12.0) == [Say("SIGHUP: killing"), StopWorkers(3)]
    assert stop.wanted(TERM, 13.0) == [Say("SIGTERM: killing"), StopWorkers(3)]


@pytest.mark.parametrize(("first", "stage"), [(TERM, 2), (INT, 3)])
def test_int_skips_the_drain(first: int, stage: int):
    stop = Stop(1)
    stop.wanted(first, 10.0)
    assert stop.wanted(INT, 10.0)[-1] == StopWorkers(stage)
    assert Stop(1).wanted(INT, 10.0) == [Say("SIGINT: stopping now"), StopServing(), StopWorkers(2)]


def test_what_was_cut_off_is_said_and_is_the_exit_code():
    stop = Stop(1)
    stop.wanted(TERM, 10.0)
    text = "tasks were cut off: they did not finish within stop_timeout"
    assert progress(stop, 10.0, cut=True) == [StopAccepting(), Say(text, is_trouble=True), End()]
    assert stop.exit_code == 1


def test_a_start_that_fails_has_its_exit_code():
    stop = Stop(1)
    assert stop.given_up(78, 10.0) == [StopServing(), StopWorkers(2)]
    assert stop.stage is Stage.HURRYING
    assert progress(stop, 10.0) == [StopAccepting(), End()]
    assert stop.exit_code == 78


def test_clients_wait_for_the_end():
    stop, first, second = Stop(77), Caller(), Caller()
    assert stop.wanted(TERM, 10.0, first)[0] == Say("SIGTERM: draining")
    stop.wanted(TERM, 11.0, second)
    assert progress(stop, 12.0) == [
        StopAccepting(),
        Say("stopped"),
        Reply(first, {"ok": True, "pid": 77}),
        Reply(second, {"ok": True, "pid": 77}),
        End(),
    ]


def test_clients_are_told_that_tasks_were_cut_off():
    stop, caller = Stop(77), Caller()
    stop.wanted(TERM, 10.0, caller)
    assert Reply(caller, {"ok": False, "pid": 77}) in progress(stop, 12.0, cut=True)
