"""The greenlet that runs tasks: parked, given work, killed; in a hub that is the test."""

from __future__ import annotations

import contextvars
import logging

import gevent
import gevent.local
import pytest
from greenlet import GreenletExit, getcurrent, greenlet

from gtask.binding import TaskFunction
from gtask.patches.leftovers import CURRENT_THREAD, FORKED
from gtask.protocols.messages import JSONRPC
from gtask.server import task_greenlet as module
from gtask.server.task_greenlet import TaskGreenlet
from gtask.tasks import current_task

from ...support.calls import NotedConnection
from ...support.loop import in_hub


def start(hub, parked, work):
    """A new greenlet that does that work now."""
    made = TaskGreenlet(hub, parked, 60.0)
    made.connection = NotedConnection()
    made.task = TaskFunction(lambda: None, "work")
    made.function, made.args, made.id, made.dialect = "work", [], 7, JSONRPC
    made.started = 100.0
    made.switch(work)
    return made


@in_hub
def test_it_is_parked_between_two_pieces_of_work(hub):
    parked, seen = [], []
    mine = start(hub, parked, seen.append)
    assert parked == [mine]
    assert mine.is_parked
    parked.remove(mine)
    mine.is_parked = False
    mine.switch(seen.append)
    assert seen == [mine, mine]
    assert parked == [mine]


@in_hub
def test_a_task_that_blocks_gives_the_cpu_back_to_the_hub(hub):
    parked, steps = [], []

    def block(mine):
        steps.append("before")
        hub.switch()
        steps.append("after")

    mine = start(hub, parked, block)
    assert (steps, mine.is_parked, parked) == (["before"], False, [])
    mine.switch()
    assert (steps, mine.is_parked, parked) == (["before", "after"], True, [mine])


def test_an_error_is_logged_and_the_greenlet_is_used_again(caplog):
    @in_hub
    def run(hub):
        parked = []

        def fail(mine):
            raise ValueError("our bug")

        mine = start(hub, parked, fail)
        assert parked == [mine]
        assert mine.is_parked

    run()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "our bug" in caplog.text


@in_hub
def test_a_late_kill_of_a_parked_one_ends_it_and_nothing_else(hub):
    parked = []
    mine = start(hub, parked, lambda mine: None)
    mine.throw(GreenletExit())
    assert parked == []
    other = start(hub, parked, lambda mine: None)
    assert parked == [other]


@in_hub
def test_of_very_many_only_some_are_kept(hub):
    parked = []
    for mine in [start(hub, parked, lambda mine: hub.switch()) for _ in range(5)]:
        mine.switch()
    assert len(parked) == 5
    parked.extend([None] * (module.MAX_PARKED - 5))
    mine = start(hub, parked, lambda mine: None)
    assert mine.is_parked
    assert mine not in parked
    mine.throw(GreenletExit())  # it has ended, and nothing happens


@in_hub
def test_the_current_task_is_an_object_once_somebody_asks(hub):
    found = []

    def ask(mine):
        assert mine.execution is None
        found.extend([current_task(), current_task()])
        assert mine.execution is found[0]

    mine = start(hub, [], ask)
    assert found[0] is found[1]
    assert (found[0].id, found[0].peer, found[0].deadline) == (7, "127.0.0.1:1", 160.0)
    assert mine.execution is None, "the next call is another one"


@in_hub
def test_a_greenlet_that_a_task_has_started_is_outside_of_it(hub):
    found = []

    def ask(mine):
        child = greenlet(lambda: found.append(current_task()))
        child.gr_context = contextvars.copy_context()
        child.parent = getcurrent()
        child.switch()

    start(hub, [], ask)
    assert found[0].id is None


@in_hub
def test_what_a_call_sets_in_its_context_is_gone_when_that_is_renewed(hub):
    variable = contextvars.ContextVar("variable", default="unset")
    seen = []

    def use(mine):
        seen.append((variable.get(), current_task().id))
        variable.set("set")
        mine.renew_context()
        seen.append((variable.get(), current_task().id))

    start(hub, [], use)
    assert seen == [("unset", 7), ("unset", 7)]


@pytest.mark.parametrize("error", [RuntimeError, GreenletExit])
def test_a_log_that_fails_does_not_end_it(error):
    class Broken(logging.Handler):
        def emit(self, record):
            raise error

    @in_hub
    def run(hub):
        parked = []
        mine = start(hub, parked, lambda mine: 1 / 0)
        assert parked == [mine]

    handler = Broken()
    logging.getLogger("gtask.tasks").addHandler(handler)
    try:
        run()
    finally:
        logging.getLogger("gtask.tasks").removeHandler(handler)


# -- what a call leaves behind --------------------------------------------------------------------


@in_hub
def test_thread_locals_that_were_touched_end_the_greenlet(hub):
    parked, local = [], gevent.local.local()

    def touch(mine):
        local.x = 1
        mine.forget_call()

    mine = start(hub, parked, touch)
    assert (parked, mine.is_parked, mine.is_spent) == ([], True, True)
    assert mine._greenlet.dead
    other = start(hub, parked, lambda _: seen.append(getattr(local, "x", None)))
    seen = []
    other.switch(lambda _: seen.append(getattr(local, "x", None)))
    assert seen == [None]


@in_hub
def test_a_local_that_has_gone_with_its_call_is_nothing_to_hide(hub):
    parked = []

    def touch(mine):
        gevent.local.local().x = 1
        mine.forget_call()

    mine = start(hub, parked, touch)
    assert (parked, mine.is_spent) == ([mine], False)


@in_hub
def test_context_and_current_thread_are_forgotten_and_it_goes_on(hub):
    parked, seen = [], []
    variable = contextvars.ContextVar("variable", default="unset")

    def call(mine):
        seen.append((variable.get(), CURRENT_THREAD in mine.locals))
        variable.set("set")
        mine.locals[CURRENT_THREAD] = "thread"
        mine.forget_call()

    mine = start(hub, parked, call)
    mine.switch(call)
    assert seen == [("unset", False)] * 2
    assert not mine.is_spent


@in_hub
def test_in_a_forked_child_a_call_ends_the_process(hub):
    ended = []

    def call(mine):
        mine.end_if_forked(None)
        mine.locals[FORKED] = True
        mine.forget_call()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "end_process", ended.append)
        start(hub, [], call)
    assert ended == [None]
