"""A task's context: its variables are its own, and `current_task` is its own call."""

from __future__ import annotations

import json
import time

import pytest

TASKS = """
import contextvars, decimal, time
import gevent
from gtask import current_task, task

seen = contextvars.ContextVar("seen", default=None)
found = {}

@task
def mark(text, how="return"):
    before = seen.get(), decimal.getcontext().prec
    seen.set(text)
    decimal.getcontext().prec = 5
    if how == "block":
        time.sleep(0.05)
    if how == "raise":
        raise ValueError(before)
    return [*before, seen.get()]

@task(blocking=True)
def mark_in_thread(text):
    return mark(text)

@task
def leave(name, seconds):
    '''Leave a greenlet in a copy of this call's context, that asks in a while.'''
    def ask():
        gevent.sleep(seconds)
        found[name] = current_task().id
    gevent.spawn(contextvars.copy_context().run, ask)
    return current_task().id

@task
def wait_for(seconds):
    gevent.sleep(seconds)
    return current_task().id

@task
def fail():
    1 / 0

@task
def told(name):
    return found.get(name, "nothing")
"""
INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
"""


@pytest.fixture(scope="module")
def worker(module_spawn):
    worker = module_spawn(INI, tasks=TASKS)
    worker.expects_traceback = True  # of the task that fails
    return worker


@pytest.mark.parametrize("how", ["return", "block", "raise"])
def test_the_next_call_does_not_see_what_one_has_set(worker, how):
    with worker.peer() as peer:
        for _ in range(3):
            reply = peer.bare("mark", "a", how)
            if how == "raise":
                assert reply["error"]["data"]["message"] == "(None, 28)"
            else:
                assert reply == [None, 28, "a"]
        assert peer.bare("mark_in_thread", "b") == [None, 28, "b"]
        assert peer.bare("mark", "c") == [None, 28, "c"]


def test_calls_that_block_at_once_have_a_context_each(worker):
    with worker.peer() as peer:
        for id in range(20):
            params = {"text": str(id), "how": "block"}
            call = {"jsonrpc": "2.0", "method": "mark", "params": params, "id": id}
            peer.send(json.dumps(call).encode() + b"\n")
        for _ in range(20):
            reply = peer.json()
            assert reply["result"] == [None, 28, str(reply["id"])]


@pytest.mark.parametrize("seconds", [0.1, 0.3])
def test_a_greenlet_that_a_task_has_left_has_no_part_in_later_calls(worker, seconds):
    """It asks while another call has blocked in the greenlet of its own, or while none has."""
    name = f"after {seconds}"
    with worker.peer() as peer:
        assert peer.rpc("leave", {"name": name, "seconds": seconds}, 7)["result"] == 7
        assert peer.rpc("wait_for", {"seconds": 0.2}, 8)["result"] == 8
        time.sleep(seconds)
        assert peer.rpc("told", {"name": name}, 9) == {"jsonrpc": "2.0", "result": None, "id": 9}
        assert peer.rpc("fail", {}, 10)["id"] == 10
