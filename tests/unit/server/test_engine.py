"""The engine's parts fit together."""

from __future__ import annotations

import threading

import gevent
import pytest

from gtask.binding import TaskFunction

from ...support.served import Served


def work():
    pass


def test_tasks_are_numbered_from_one_for_the_scoreboard():
    with Served(TaskFunction(work, "a"), TaskFunction(work, "b")) as served:
        assert [task.number for task in served.engine.tasks.values()] == [1, 2]
        assert list(served.engine.tasks) == ["a", "b"]


def test_it_knows_its_thread_and_its_parts_know_each_other():
    with Served(work, concurrency=3, task_timeout=5.0) as served:
        engine = served.engine
        assert engine.thread == threading.get_native_id() or engine.thread == threading.get_ident()
        assert engine.turns.concurrency == 3
        assert not engine.is_draining
        assert engine.connections == set()


@pytest.mark.parametrize("limit", [0.0, 5.0])
def test_the_services_limit_is_the_tasks_unless_it_has_one(limit):
    own = TaskFunction(work, "own", timeout=2.0)
    deadlines = []

    def look():
        from gtask import current_task

        deadlines.append(current_task().deadline)
        gevent.sleep(0)

    with Served(TaskFunction(look, "plain"), own, task_timeout=limit) as served:
        peer = served.connect()
        peer.bare("plain")
        assert peer.line() is None
        assert (deadlines[0] is None) == (limit == 0.0)
