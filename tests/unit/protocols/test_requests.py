"""Lines joined from parts are what encoding the whole object would give."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.protocols.jsontext import dumps, loads
from gtask.protocols.messages import BARE, JSONRPC, read_message
from gtask.protocols.requests import encode_bare, encode_cancel, encode_ping, encode_rpc

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
arguments = st.one_of(
    st.dictionaries(names, st.integers(-(2**53), 2**53) | names, max_size=3),
    st.lists(st.none() | st.booleans() | names, max_size=3),
)
timeouts = st.none() | st.floats(0.001, 1e6)


@given(
    st.integers(1, 2**40),
    names.filter(lambda n: n != "gtask.call"),
    arguments,
    timeouts,
    st.booleans(),
)
def test_a_request_is_read_as_it_was_meant(id, function, args, timeout, wants_progress):
    line = encode_rpc(id, function, dumps(args), timeout, wants_progress)
    assert line.endswith(b"\n")
    assert b"\n" not in line[:-1]
    call = read_message(loads(line[:-1]))
    assert (call.function, call.args, call.id, call.dialect) == (function, args, id, JSONRPC)
    assert call.wants_progress == wants_progress
    assert call.timeout == (timeout if timeout is None else pytest.approx(timeout, rel=1e-5))


@given(names, arguments, timeouts)
def test_a_bare_task_is_read_as_it_was_meant(function, args, timeout):
    call = read_message(loads(encode_bare(function, dumps(args), timeout)[:-1]))
    assert (call.function, call.args, call.dialect) == (function, args, BARE)
    assert call.timeout == (timeout if timeout is None else pytest.approx(timeout, rel=1e-5))


def test_no_arguments():
    assert json.loads(encode_rpc(7, "f", b"")) == {"jsonrpc": "2.0", "method": "f", "id": 7}
    assert json.loads(encode_rpc(7, "f", b"", 1.5))["params"] == {
        "function": "f",
        "args": [],
        "options": {"timeout": 1.5},
    }
    assert json.loads(encode_bare("f", b"")) == {"function": "f", "args": []}


def test_ping_and_cancel():
    assert json.loads(encode_ping()) == {"jsonrpc": "2.0", "method": "gtask.ping", "id": 0}
    assert json.loads(encode_cancel(5)) == {
        "jsonrpc": "2.0",
        "method": "gtask.cancel",
        "params": {"id": 5},
    }
