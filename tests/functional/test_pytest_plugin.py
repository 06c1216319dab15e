"""The real workers that gtask gives to its users' tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from gtask import TaskClient
from gtask.config.settings import ServiceSettings, Settings
from gtask.pytest_plugin import WHOLE_TREE

from ..support.spawn import ROOT, descendants, is_alive
from ..support.wait import SLOWNESS, wait_until

TASKS = """
import time
from gtask import task

@task
def add(a, b):
    return a + b

@task(timeout=0)
def hang():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


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


@pytest.fixture
def some_tasks(tmp_path, monkeypatch):
    (tmp_path / "some_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "some_tasks"


def test_keys_of_either_section_with_values_of_python(gtask_worker, some_tasks, tmp_path):
    """Each key that there is, as far as a test can use it; a new one has to be put here."""
    service = {
        "listen": f"text+unix://{tmp_path}/s",
        "count": 1,
        "concurrency": 7,
        "tasks": [some_tasks],
        "task_timeout": 1.5,
        "hard_timeout": 1e-4 + 60,
        "max_tasks": 1000,
        "max_rss_mb": 1000,
        "max_connections": 100,
        "max_frame_bytes": 100_000,
        "max_batch": 5,
        "max_send_buffer_bytes": 100_000,
        "idle_timeout": 60,
        "allow": ["127.0.0.1", "::1"],
        "backlog": 5,
        "socket_mode": 0o600,
        "handler": None,
        "certfile": None,
        "keyfile": None,
        "cafile": None,
        "user": "",
        "group": "",
        "origins": [],
    }
    whole = {
        "pid_file": tmp_path / "pid",
        "control": tmp_path / "control",
        "log_level": "debug",
        "log_format": "text",
        "stop_timeout": 3,
        "boot_timeout": 30,
        "python_path": [tmp_path],
    }
    known = {field.name for field in fields(ServiceSettings)} - {"name"}
    assert known & service.keys() == service.keys()
    assert (
        {field.name for field in fields(Settings)}
        >= whole.keys()
        == WHOLE_TREE - {"log_file", "crons"}
    )
    worker = gtask_worker(**service, **whole)
    with TaskClient(worker.url) as client:
        assert client.call("add", [1, 2]).get(timeout=5) == 3
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600


def test_a_task_that_hangs_does_not_keep_the_test_from_ending(gtask_worker, some_tasks):
    worker = gtask_worker(some_tasks)
    client = TaskClient(worker.url)
    client.call("hang")
    assert client.call("add", [1, 2]).get(timeout=5) == 3
    pids = descendants(worker._process.pid)
    start = time.monotonic()
    worker.stop()
    assert time.monotonic() - start < 6 * SLOWNESS
    client.close()
    wait_until(lambda: not any(map(is_alive, pids)))


KILLED = """
import os, time

def test_it(gtask_worker):
    with open("pid", "w") as file:
        file.write(str(gtask_worker("some_tasks")._process.pid))
    os.rename("pid", "pid.there")
    time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_however_pytest_ends(tmp_path, end):
    (tmp_path / "some_tasks.py").write_text(TASKS)
    (tmp_path / "test_it.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "GTASK_PURE": ""},
        stdout=subprocess.DEVNULL,
    )
    there: Path = tmp_path / "pid.there"
    wait_until(there.exists, 20)
    pid = int(there.read_text())
    pids = [pid, *descendants(pid), *descendants(process.pid)]
    assert is_alive(pid)
    process.send_signal(end)
    process.wait(20 * SLOWNESS)
    wait_until(lambda: not any(map(is_alive, pids)))
