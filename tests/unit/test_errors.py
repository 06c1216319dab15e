"""The exceptions, and the error objects of the wire that they stand for."""

from __future__ import annotations

import inspect
import pickle

import pytest

from gtask import errors
from gtask.errors import (
    ConfigError,
    FrameTooLong,
    GtaskError,
    InternalError,
    ProtocolError,
    TaskError,
    TaskFailed,
    TaskTimeout,
)

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, TaskError) and kind is not TaskError
]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_wire(kind: type[TaskError]):
    sent = kind("no", {"why": 1})
    assert sent.as_dict() == {"code": kind.code, "message": "no", "data": {"why": 1}}
    got = TaskError.from_dict(sent.as_dict())
    assert type(got) is kind
    assert (got.code, got.message, got.data, str(got)) == (kind.code, "no", {"why": 1}, "no")


def test_each_code_has_one_class():
    assert len({kind.code for kind in KINDS}) == len(KINDS)


def test_absent_data_stays_absent():
    assert TaskFailed("no").as_dict() == {"code": 1, "message": "no"}
    assert TaskError.from_dict({"code": 1, "message": "no"}).data is None


def test_other_codes():
    unknown = TaskError.from_dict({"code": -32050, "message": "?"})
    assert (type(unknown), unknown.code) == (TaskError, -32050)
    own = TaskError.from_dict({"code": 404, "message": "not there"})
    assert (type(own), own.code, own.as_dict()["code"]) == (TaskFailed, 404, 404)


@pytest.mark.parametrize(
    "malformed", [None, "no", [], {}, {"code": "1"}, {"code": True}, {"code": 1.0}]
)
def test_a_malformed_error_object_is_an_internal_error(malformed: object):
    got = TaskError.from_dict(malformed)
    assert type(got) is InternalError
    assert got.data == {"error": malformed}


def test_what_may_succeed_if_repeated():
    assert {kind.__name__ for kind in KINDS if kind.retryable} == {
        "Draining",
        "Overloaded",
        "QueueFull",
        "StoreUnavailable",
        "WorkerLost",
    }


def test_the_end_of_a_durable_task_is_final():
    assert errors.WorkerLost("no").retryable
    assert not errors.WorkerLost("no", {"final": True}).retryable


def test_which_protocol_errors_end_a_connection():
    assert FrameTooLong(10).fatal
    assert not ProtocolError(errors.PARSE_ERROR, "no JSON").fatal
    assert "10 bytes" in FrameTooLong(10).message


def test_a_configuration_error_keeps_its_problems_apart():
    error = ConfigError(["one", "two"])
    assert error.problems == ["one", "two"]
    assert str(error) == "one\ntwo"


def test_all_but_a_time_limit_are_gtask_errors():
    others = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, BaseException) and not issubclass(kind, GtaskError)
    }
    assert others == {TaskTimeout}
    assert not issubclass(TaskTimeout, Exception)


def test_a_task_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(TaskFailed("no", {"type": "ValueError"}, code=7)))
    assert (error.message, error.data, error.code) == ("no", {"type": "ValueError"}, 7)
