"""The real workers that gtask gives to its users' tests."""

from __future__ import annotations

import time

import pytest

from gtask import TaskClient

from ..support.wait import SLOWNESS


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
