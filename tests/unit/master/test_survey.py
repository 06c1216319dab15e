from __future__ import annotations

import pytest

from gtask.master.messages import Connections
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
def workers() -> list[Process]:
    return [Process(1, "T", number, number, 0.0, pid=1000 + number) for number in range(2)]


def part(pid: int, *peers: str, first: bool = False, last: bool = False) -> Connections:
    return Connections(pid, 0, [{"peer": peer} for peer in peers], first, last)


def test_all_answer(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers, 10.0)
    first, second = (each.pid for each in workers)
    survey.add(part(first, "a", first=True), 10.1)
    survey.add(part(first, "b", last=True), 10.2)
    assert not survey.finish(10.9)
    survey.add(part(second, first=True, last=True), 10.9)
    survey.add(part(second, "c", first=True, last=True), 10.9)  # it has answered already
    survey.add(part(1, "d", first=True, last=True), 10.9)  # nobody we asked
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
    survey.add(part(workers[0].pid, first=True, last=True), 10.1)
    assert survey.finish(11.0)
    assert caller.answer["silent"] == [{"service": "T", "pid": workers[1].pid, "id": 1}]


def test_a_worker_that_is_not_through_is_waited_for(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers[:1], 10.0)
    pid = workers[0].pid
    for second in range(5):
        survey.add(part(pid, "a", first=not second), 10.0 + 0.9 * second)
        assert not survey.finish(10.8 + 0.9 * second)
    assert survey.finish(15.0)
    assert len(caller.answer["connections"]) == 5
    assert [each["pid"] for each in caller.answer["silent"]] == [pid], "it has not said the last"


def test_the_rest_of_an_earlier_answer_is_none(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers[:1], 10.0)
    pid = workers[0].pid
    survey.add(part(pid, "of an answer to somebody else", last=True), 10.0)
    survey.add(part(pid, "a", first=True), 10.0)
    survey.add(part(pid, "b", first=True, last=True), 10.0)  # it begins anew
    assert survey.finish(10.0)
    assert [each["peer"] for each in caller.answer["connections"]] == ["b"]


def test_a_worker_cannot_pass_for_another(workers: list[Process]):
    caller = Caller()
    survey = Survey(caller, workers[:1], 10.0)
    pid = workers[0].pid
    lie = Connections(pid, 0, [{"pid": 1, "service": "X"}], first=True, last=True)
    survey.add(lie, 10.0)
    assert survey.finish(10.0)
    assert caller.answer["connections"] == [{"pid": pid, "service": "T", "id": 0}]


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
