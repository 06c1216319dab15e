"""The fixture `gtask_queue`: a real store, tasks run in place."""

from __future__ import annotations

from types import ModuleType

import pytest

from gtask import Queue, Reject, Retry, TaskFailed, current_task, task

ran = []


@task(retries=1, retry_delay=0)
def again():
    ran.append(current_task().attempt)
    if current_task().attempt == 1:
        raise Retry(after=0)
    return "done"


@task
def chain(url, left):
    if left:
        with Queue(url) as queue:
            queue.put("chain", [url, left - 1], id=f"{current_task().id}:next")


@task(retries=5)
def reject():
    raise Reject("never")


@pytest.fixture
def inline(gtask_queue):
    module = ModuleType("tasks_of_the_test")
    module.__dict__.update(again=again, chain=chain, reject=reject)
    return gtask_queue(module)


def test_what_is_due_is_run_with_its_retries(inline):
    with Queue(inline.url) as queue:
        job = queue.put("again")
        later = queue.put("again", delay=100)
        assert inline.run() == 2
        assert (ran, job.get(), later.state()) == ([1, 2], "done", "delayed")


def test_what_a_task_puts_is_run_too(inline):
    with Queue(inline.url) as queue:
        queue.put("chain", [inline.url, 2], id="c")
        assert inline.run() == 3
        assert queue.job("c:next:next").state() == "done"


def test_errors_are_kept(inline):
    with Queue(inline.url) as queue:
        job, bad = queue.put("reject"), queue.put("reject", [1])
        assert inline.run() == 2
        with pytest.raises(TaskFailed, match="never"):
            job.get()
        assert bad.info()["reason"] == "bad_arguments"
