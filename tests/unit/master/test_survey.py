from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from gtask.master.slots import Process
from gtask.master.survey import Survey


class Caller:
    """A client of the control socket, that keeps its answer."""

    def __init__(self) -> None:
        self.is_closed = False
        self.answer: dict = {}

    def reply(self, **answer: object) -> None:
        assert not self.answer
        self.answer = answer


@pytest.fixture
def workers() -> Iterator[list[Process]]:
    """Two processes that wait for the signal, and end when it comes."""
    processes = []
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    for worker_id in range(2):
        pid = os.fork()
        if pid == 0:
            os._exit(signal.sigwait([signal.SIGUSR2]))
        processes.append(Process(1, "T", worker_id, worker_id, 0.0, pid=pid))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR2])
    yield processes
    for process in processes:
        _, status = os.waitpid(process.pid, 0)
        assert os.waitstatus_to_exitcode(status) == signal.SIGUSR2


def test_all_answer(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers, 10.0)
    first, second = (each.pid for each in workers)
    survey.add(first, [{"peer": "a"}], False)
    survey.add(first, [{"peer": "b"}], True)
    assert not survey.finish(10.9)
    survey.add(second, [], True)
    survey.add(second, [{"peer": "c"}], True)  # it has answered already
    survey.add(1, [{"peer": "d"}], True)  # nobody we asked
    assert survey.finish(10.9)
    assert caller.answer == {
        "ok": True,
        "connections": [
            {"service": "T", "pid": first, "id": 0, "peer": "a"},
            {"service": "T", "pid": first, "id": 0, "peer": "b"},
        ],
        "silent": [],
    }


def test_those_who_do_not_answer_within_a_second_are_named(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers, 10.0)
    survey.add(workers[0].pid, [], True)
    assert survey.finish(11.0)
    assert caller.answer["silent"] == [{"service": "T", "pid": workers[1].pid, "id": 1}]


def test_a_caller_that_has_gone_is_not_waited_for(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers, 10.0)
    caller.is_closed = True
    assert survey.finish(10.0)
    assert caller.answer == {}


def test_nobody_to_ask():
    caller = Caller()
    assert Survey(caller, [], 10.0).finish(10.0)
    assert caller.answer == {"ok": True, "connections": [], "silent": []}
