"""Calls that a task makes end with it: at its time limit, and when it is cancelled."""

from __future__ import annotations

import time

import gevent
import pytest

from gtask import TaskClient
from gtask.errors import TaskCancelled, TaskFailed, TaskTimedOut

from ..support.wait import SLOWNESS, wait_until

TASKS = """
import time
from gtask import TaskClient, current_task, task

clients = {}

def client(url):
    return clients.setdefault(url, TaskClient(url))

@task
def inner(path, seconds):
    try:
        time.sleep(seconds)
    finally:
        open(path, "w").close()
    return "slept"

@task
def outer(url, path, seconds, timeout=None):
    return client(url).call("inner", [path, seconds], timeout=timeout).get()

@task
def outer_without_waiting(url, path, seconds):
    client(url).call("inner", [path, seconds])
    time.sleep(seconds)

@task(blocking=True)
def outer_in_a_thread(url, path, seconds):
    return client(url).call("inner", [path, seconds]).get()

@task
def left(url):
    return client(url).call("what_is_left").get()

@task
def what_is_left():
    return current_task().deadline - time.monotonic()
"""
INI = """
[gtask]
stop_timeout = 2
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = things
"""


@pytest.fixture(scope="module")
def urls(module_spawn):
    servers = [module_spawn(INI, things=TASKS) for _ in range(2)]
    for server in servers:
        server.expects_traceback = True
    return [server.url() for server in servers]


@pytest.mark.parametrize("outer", ["outer", "outer_without_waiting", "outer_in_a_thread"])
def test_its_time_limit_is_theirs(urls, tmp_path, outer):
    with TaskClient(urls[0]) as client:
        start = time.monotonic()
        with pytest.raises(TaskTimedOut):
            client.call(outer, [urls[1], f"{tmp_path}/ended", 30], timeout=0.5).get()
        wait_until((tmp_path / "ended").exists, 5, sleep=gevent.sleep)
        assert time.monotonic() - start < 5 * SLOWNESS


@pytest.mark.parametrize("outer", ["outer", "outer_without_waiting", "outer_in_a_thread"])
def test_they_are_cancelled_with_it(urls, tmp_path, outer):
    with TaskClient(urls[0]) as client:
        call = client.call(outer, [urls[1], f"{tmp_path}/ended", 30], timeout=60)
        gevent.sleep(0.5)
        call.cancel()
        with pytest.raises(TaskCancelled):
            call.get()
        wait_until((tmp_path / "ended").exists, 5, sleep=gevent.sleep)


def test_no_timeout_is_what_is_left_and_a_longer_one_no_more(urls, tmp_path):
    with TaskClient(urls[0]) as client:
        assert 10 < client.call("left", [urls[1]], timeout=20).get() <= 20
        with pytest.raises(TaskTimedOut):
            client.call("outer", [urls[1], f"{tmp_path}/a", 30, 100], timeout=0.5).get()
        with pytest.raises(TaskFailed, match="TaskTimedOut"):
            client.call("outer", [urls[1], f"{tmp_path}/b", 30, 0.2], timeout=20).get()
        assert client.call("outer", [urls[1], f"{tmp_path}/c", 0]).get() == "slept"
