"""A call as an object, and the answers of a batch."""

from __future__ import annotations

import json
import logging

import pytest

from gtask.errors import TaskFailed, UnknownTask
from gtask.protocols.messages import BARE
from gtask.server.execution import Batch, failure_of

from ...support.calls import NotedConnection, make_call
from ...support.loop import FakeLoop


@pytest.mark.parametrize(
    ("own", "service", "caller", "deadline"),
    [
        (None, 0.0, None, None),
        (None, 60.0, None, 160.0),
        (5.0, 60.0, None, 105.0),
        (0.0, 60.0, None, None),
        (0.0, 60.0, 130.0, 130.0),
        (None, 60.0, 130.0, 130.0),
        (None, 60.0, 170.0, 160.0),
    ],
)
def test_the_earliest_limit_is_the_deadline(own, service, caller, deadline):
    call = make_call(NotedConnection())
    call.task.timeout = own
    call.deadline = caller
    call.set_limit(100.0, service)
    assert (call.started, call.deadline) == (100.0, deadline)


def test_progress_goes_only_to_who_asked_and_waits():
    connection = NotedConnection()
    make_call(connection).progress(1, 2)
    assert not connection.sent
    call = make_call(connection, 7, wants_progress=True)
    call.progress(1, 2, "half")
    call.refuse(UnknownTask("gone"))
    call.progress(2, 2)
    assert [json.loads(line)["params"] for line in connection.sent] == [
        {"id": 7, "done": 1, "total": 2, "note": "half"}
    ]


def test_only_the_first_refusal_is_told():
    connection = NotedConnection()
    call = make_call(connection, 7)
    call.refuse(UnknownTask("first"))
    call.refuse(UnknownTask("second"))
    assert [reply["error"]["message"] for _, reply in connection.answers] == ["first"]


def test_a_timer_is_closed_once():
    call, loop = make_call(NotedConnection()), FakeLoop()
    call.stop_timer()
    call.timer = loop.timer(1)
    call.stop_timer()
    call.stop_timer()
    assert call.timer is None
    assert not loop.timers


def test_it_is_told_apart_in_the_log():
    call = make_call(NotedConnection(), "a")
    assert repr(call) == "work id=a of 127.0.0.1:1"
    assert call.peer == "127.0.0.1:1"


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1]])
def test_a_batch_is_whole_with_its_last_answer(order):
    batch = Batch(3)
    *early, last = [batch.add(b"%d" % number) for number in order]
    assert early == [None, None]
    assert json.loads(last) == order


def test_notifications_of_a_batch_have_no_answer():
    batch = Batch(3)
    assert batch.add(None) is None
    assert batch.add(b"1") is None
    assert batch.add(None) == b"[1]"
    batch = Batch(2)
    assert batch.add(None) is batch.add(None) is None


def test_a_caller_is_told_the_exception_and_the_log_its_traceback(caplog):
    error = failure_of(make_call(NotedConnection(), dialect=BARE), ValueError("no such mail"))
    assert isinstance(error, TaskFailed)
    assert error.message == "ValueError: no such mail"
    assert error.data == {"type": "ValueError", "message": "no such mail"}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert failure_of(make_call(NotedConnection()), KeyError()).message == "KeyError"


def test_an_exception_without_words_is_told_by_its_name():
    class Mute(Exception):
        def __str__(self):
            raise SystemExit

    logging.getLogger("gtask.tasks").disabled = True  # it cannot be printed either
    try:
        error = failure_of(make_call(NotedConnection()), Mute())
    finally:
        logging.getLogger("gtask.tasks").disabled = False
    assert error.message == "Mute"
    assert error.data == {"type": "Mute", "message": ""}
