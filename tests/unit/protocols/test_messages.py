"""The dialects: what a message asks for, and how it is answered."""

from __future__ import annotations

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.errors import TaskFailed
from gtask.protocols.messages import (
    BARE,
    JSONRPC,
    LOOSE,
    Call,
    InvalidCall,
    notification,
    read_message,
)

ids = st.integers() | st.text(max_size=5)
args = st.dictionaries(st.text(max_size=3), st.integers()) | st.lists(st.integers())
names = st.text(min_size=1, max_size=10).filter(lambda name: not name.startswith("gtask."))


def as_tuple(call: Call) -> tuple:
    return call.function, call.args, call.id, call.dialect, call.is_notification, call.timeout


@given(names, args)
def test_a_bare_task(name, args):
    call = read_message({"function": name, "args": args})
    assert as_tuple(call) == (name, args, None, BARE, False, None)
    assert json.loads(call.result([1])) == [1]
    assert json.loads(call.error(TaskFailed("no", {"a": 1}))) == {
        "error": {"code": 1, "message": "no", "data": {"a": 1}}
    }


@given(names, args, ids)
def test_a_json_rpc_call_and_its_replies(name, args, id):
    call = read_message({"jsonrpc": "2.0", "method": name, "params": args, "id": id})
    assert as_tuple(call) == (name, args, id, JSONRPC, False, None)
    assert json.loads(call.result("x")) == {"jsonrpc": "2.0", "result": "x", "id": id}
    assert json.loads(call.error(TaskFailed("no"))) == {
        "jsonrpc": "2.0",
        "error": {"code": 1, "message": "no"},
        "id": id,
    }


def test_the_loose_form_is_answered_in_kind():
    call = read_message({"method": "add", "params": [1], "id": 7})
    assert as_tuple(call) == ("add", [1], 7, LOOSE, False, None)
    assert json.loads(call.result(3)) == {"result": 3, "id": 7}


@given(names, args, ids, st.floats(0.001, 1000), st.booleans())
def test_gtask_call_unwraps(name, args, id, timeout, progress):
    options = {"timeout": timeout, "progress": progress}
    params = {"function": name, "args": args, "options": options}
    call = read_message({"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": id})
    assert as_tuple(call) == (name, args, id, JSONRPC, False, timeout)
    assert call.wants_progress is progress


def test_a_call_without_id_is_a_notification_and_one_with_null_is_not():
    assert read_message({"jsonrpc": "2.0", "method": "a"}).is_notification
    call = read_message({"jsonrpc": "2.0", "method": "a", "id": None})
    assert not call.is_notification
    assert json.loads(call.result(1))["id"] is None


@pytest.mark.parametrize(
    ("message", "dialect", "code"),
    [
        (1, JSONRPC, -32600),
        ([], JSONRPC, -32600),
        (None, JSONRPC, -32600),
        ({}, BARE, -32600),
        ({"foo": "boo"}, BARE, -32600),
        ({"function": 1}, BARE, -32600),
        ({"function": "f", "args": "x"}, BARE, -32602),
        ({"function": "f", "args": None}, BARE, -32602),
        ({"function": "f", "timeout": 0}, BARE, -32600),
        ({"function": "f", "timeout": True}, BARE, -32600),
        ({"function": "f", "timeout": float("inf")}, BARE, -32600),
        ({"jsonrpc": "1.0", "method": "f", "id": 1}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": 1, "id": 1}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": "f", "params": "bar", "id": 1}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": "f", "id": 1.5}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": "f", "id": True}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": "f", "id": {}}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "result": 1, "id": 1}, JSONRPC, -32600),
        ({"jsonrpc": "2.0", "method": "gtask.call", "params": [], "id": 1}, JSONRPC, -32602),
        ({"jsonrpc": "2.0", "method": "gtask.call", "params": {"function": 3}, "id": 1}, JSONRPC, -32602),
        ({"jsonrpc": "2.0", "method": "gtask.call", "id": 1,
          "params": {"function": "f", "options": {"timeout": -1}}}, JSONRPC, -32602),
        ({"jsonrpc": "2.0", "method": "gtask.call", "id": 1,
          "params": {"function": "f", "options": {"colour": 1}}}, JSONRPC, -32602),
    ],
)  # fmt: skip
def test_what_is_no_call_gets_an_error(message, dialect, code):
    call = read_message(message)
    assert isinstance(call, InvalidCall)
    assert call.dialect == dialect
    error = json.loads(call.error(call.problem))["error"]
    assert error["code"] == code


def test_a_batch_is_given_back_unread():
    assert read_message([1, 2]) == [1, 2]


def test_data_that_is_not_json_is_left_out():
    call = read_message({"function": "f"})
    assert json.loads(call.error(TaskFailed("no", object()))) == {
        "error": {"code": 1, "message": "no"}
    }


def test_a_notification():
    assert json.loads(notification("gtask.goaway", {})) == {
        "jsonrpc": "2.0",
        "method": "gtask.goaway",
        "params": {},
    }


@pytest.mark.parametrize("id", [10**300, -(10**30), "text" * 20])
def test_a_reply_keeps_no_reference_to_its_id(id):
    call = Call("f", [], id, JSONRPC, False)
    before = sys.getrefcount(id)
    for _ in range(10):
        call.result(1)
        call.error(TaskFailed("no"))
    assert sys.getrefcount(id) == before
