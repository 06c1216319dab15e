"""The fixtures that gtask gives to its users' tests."""

from __future__ import annotations

import datetime
import sys
import time

import pytest

from gtask import TaskClient, current_task, task
from gtask.errors import BadArguments, InternalError, TaskFailed, UnknownTask

from ..support.wait import SLOWNESS


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


def test_a_real_worker_is_there_in_well_under_a_second(gtask_worker, tmp_path, monkeypatch):
    (tmp_path / "some_tasks.py").write_text(
        "from gtask import task\n@task\ndef add(a, b):\n    return a + b\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    start = time.monotonic()
    worker = gtask_worker("some_tasks", count=2)
    assert time.monotonic() - start < 2 * SLOWNESS
    client = TaskClient([worker.url])
    assert client.call("add", {"a": 1, "b": 2}).get(timeout=5) == 3
    client.close()
    assert "Tasks ready" in worker.log


def test_a_worker_that_cannot_start_fails_the_test_with_its_log(gtask_worker):
    with pytest.raises(pytest.fail.Exception, match="no_such_module"):
        gtask_worker("no_such_module")


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
