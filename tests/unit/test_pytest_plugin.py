"""Tasks called in the test's own process, as gtask lets its users do."""

from __future__ import annotations

import datetime
import sys

import pytest

from gtask import current_task, task
from gtask.errors import BadArguments, InternalError, Overloaded, TaskFailed, UnknownTask


@task
def add(a, b=1):
    current_task().progress(1, 2, "half")
    return a + b


@task
def today():
    return datetime.date.today()


@task
def fail():
    raise ValueError("bad")


@task
def pair():
    return (1, {2: "two"})


@task
def refuse():
    raise Overloaded("not now")


@task
def who():
    running = current_task()
    return [running.id, running.peer, running.deadline]


def test_inline_calls_make_the_round_trip(gtask_inline):
    tasks = gtask_inline(sys.modules[__name__])
    assert tasks.call("add", {"a": 1}) == 2
    assert tasks.call("add", [1, 2]) == 3
    assert tasks.progress == [(1, 2, "half")] * 2
    assert tasks.call("pair") == [1, {"2": "two"}]


def test_inline_errors_are_those_of_a_worker(gtask_inline):
    tasks = gtask_inline(sys.modules[__name__])
    with pytest.raises(UnknownTask):
        tasks.call("os.system")
    with pytest.raises(BadArguments):
        tasks.call("add", {"c": 1})
    with pytest.raises(InternalError):
        tasks.call("today")
    with pytest.raises(InternalError):
        tasks.call("add", {"a": datetime.date.today()})
    with pytest.raises(TaskFailed, match="ValueError: bad") as caught:
        tasks.call("fail")
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_that_a_call_of_its_own_has_raised_is_the_tasks_failure_as_in_a_worker(
    gtask_inline,
):
    with pytest.raises(TaskFailed, match="Overloaded: not now") as caught:
        gtask_inline(__name__).call("refuse")
    assert isinstance(caught.value.__cause__, Overloaded)


def test_a_task_is_told_that_it_runs_in_place(gtask_inline):
    assert gtask_inline(__name__).call("who") == [None, "inline", None]


@pytest.mark.parametrize("args", ["text", 1, True])
def test_arguments_are_an_object_or_an_array(gtask_inline, args):
    with pytest.raises(BadArguments, match="an object or an array"):
        gtask_inline(__name__).call("add", args)


def test_nothing_runs_once_the_call_is_over(gtask_inline):
    tasks = gtask_inline(__name__)
    tasks.call("pair")
    current_task().progress(1)
    assert tasks.progress == []
