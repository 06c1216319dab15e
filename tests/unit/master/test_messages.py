from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gtask.master.messages import (
    BadMessage,
    CannotBoot,
    Connections,
    Loaded,
    NotLoaded,
    NotSpawned,
    Ready,
    Recycle,
    Spawned,
    in_one_line,
    read_mold_message,
    read_worker_message,
)

CONNECTION = {
    "peer": "127.0.0.1:5",
    "protocol": "bare",
    "outstanding": 0,
    "bytes_read": 1,
    "bytes_written": 2,
    "send_buffer": 0,
    "idle_seconds": 0.5,
}
WHO = {"pid": 7, "row": 2}
PLACE = {"service": "T", "row": 2}

FROM_MOLD = [
    ({"event": "loaded", "functions": {"T": ["add"]}}, Loaded({"T": ["add"]})),
    ({"event": "failed", "problems": ["no x"], "code": 78}, NotLoaded(["no x"], 78)),
    ({"event": "failed", **PLACE, "reason": "no more"}, NotSpawned("T", 2, "no more")),
    ({"event": "spawned", **PLACE, "pid": 7}, Spawned("T", 2, 7)),
]
FROM_WORKER = [
    ({"event": "ready", **WHO}, Ready(7, 2)),
    ({"event": "failed", **WHO, "reason": "no"}, CannotBoot(7, 2, "no")),
    ({"event": "recycle", **WHO, "reason": "max_tasks: 3"}, Recycle(7, 2, "max_tasks: 3")),
    (
        {"event": "connections", **WHO, "connections": [CONNECTION], "first": True, "last": False},
        Connections(7, 2, [CONNECTION], first=True, last=False),
    ),
]
EMPTY = [("functions", {}), ("connections", [])]  # of these there may be none
READERS = [(read_mold_message, FROM_MOLD), (read_worker_message, FROM_WORKER)]


@pytest.mark.parametrize(("read", "messages"), READERS)
def test_each_message(read, messages):
    for message, meaning in messages:
        assert read(json.dumps(message).encode()) == meaning


@pytest.mark.parametrize(("read", "messages"), READERS)
def test_each_field_is_needed_and_has_its_type(read, messages):
    for message, _ in messages:
        for key in message:
            for wrong in (None, {}, [], [1], -1, 2**70, 1.5, float("nan"), [{}], {"T": [1]}):
                if (key, wrong) in EMPTY:
                    continue
                with pytest.raises(BadMessage):
                    read(json.dumps({**message, key: wrong}).encode())
            with pytest.raises(BadMessage):
                read(json.dumps({one: message[one] for one in message if one != key}).encode())


@pytest.mark.parametrize("key", CONNECTION)
@pytest.mark.parametrize("wrong", [None, [], {}, float("nan"), 2**64])
def test_each_field_of_a_connection(key: str, wrong: object):
    message = {**FROM_WORKER[3][0], "connections": [{**CONNECTION, key: wrong}]}
    with pytest.raises(BadMessage):
        read_worker_message(json.dumps(message).encode())


def test_a_connection_may_have_more_fields_but_none_that_is_deep():
    more = {**CONNECTION, "subprotocol": "chat", "room": None}
    message = {**FROM_WORKER[3][0], "connections": [more]}
    assert read_worker_message(json.dumps(message).encode()).connections == [more]
    message["connections"] = [{**CONNECTION, "more": [1]}]
    with pytest.raises(BadMessage):
        read_worker_message(json.dumps(message).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{]",
        b"null",
        b"[" * 100_000,
        b'{"event":' * 50_000,
        b'{"event": "ready", "pid": ' + b"1" * 100_000 + b"}",
        b"\xff\xfe",
        b'{"event": ["ready"]}',
        b'{"event": "reload"}',
    ],
)
@pytest.mark.parametrize("read", [read_mold_message, read_worker_message])
def test_nonsense(read, data: bytes):
    with pytest.raises(BadMessage):
        read(data)


def test_texts_are_for_a_log():
    message = {"event": "recycle", **WHO, "reason": "a\n\x1b[2J\ud800" + "x" * 10_000}
    reason = read_worker_message(json.dumps(message).encode()).reason
    assert reason.startswith(r"a\n\x1b[2J\ud800xxx")
    assert len(reason) < 600
    assert in_one_line("작업 완료") == "작업 완료"


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
EVENTS = ["loaded", "failed", "spawned", "ready", "recycle", "connections", "spawn"]
FIELDS = ["event", "pid", "row", "service", "reason", "problems", "code", "functions"]


@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "connections", "first", "last"]),
        Json | st.sampled_from(EVENTS) | st.integers(0, 10) | st.lists(Json, max_size=2),
    ),
    st.sampled_from([None, *EVENTS]),
)
@example({"functions": {"T": []}}, "loaded")
def test_whatever_object_comes_it_is_a_message_or_none(message: dict, event: str | None):
    if event is not None:
        message["event"] = event
    check(json.dumps(message).encode())


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_a_message_or_none(data: bytes):
    check(data)


def check(data: bytes) -> None:
    for read in (read_mold_message, read_worker_message):
        try:
            meaning = read(data)
        except BadMessage:
            continue
        if isinstance(meaning, Spawned | Ready | CannotBoot | Recycle | Connections):
            assert 0 < meaning.pid < 2**22
        assert meaning == read(data)
