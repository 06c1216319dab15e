"""Whose an answer is that cannot be read."""

from __future__ import annotations

import pytest

from gtask.client.unreadable import MAX_BYTES, Skipper, id_of
from gtask.errors import FrameTooLong


@pytest.mark.parametrize(
    ("frame", "id"),
    [
        (b'{"jsonrpc":"2.0","result":[1e999],"id":12}', 12),
        (b'{"jsonrpc":"2.0","result":1,"id":12}\r', 12),
        (b'{"id": 12, "jsonrpc": "2.0", "result": "x"}', 12),
        (b'{"jsonrpc": "2.0", "id" : 12 , "result": {"id":3}}', 12),
        (b'{"result":{"id":3}}', 0),
        (b'{"result":"\\"id\\":12}', 0),
        (b'{"a,\\"id":12}', 0),
        (b'{"result":1,"id":"12"}', 0),
        (b"HTTP/1.1 400 Bad Request", 0),
        (b"", 0),
    ],
)
def test_ids(frame, id):
    assert id_of(frame[:200], frame[-200:]) == id


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_frame_is_skipped_in_pieces_of_any_size(size):
    stream = b'{"result":"' + b"x" * 5000 + b'","id":7}\nwhat follows'
    skipper = Skipper(100)
    rest = None
    for start in range(0, len(stream), size):
        rest = skipper.feed(stream[start : start + size])
        if rest is not None:
            break
    assert skipper.id() == 7
    assert b"what follows".startswith(rest)


def test_a_frame_without_end():
    skipper = Skipper(100)
    for _ in range(MAX_BYTES // 1_000_000):
        assert skipper.feed(b"x" * 1_000_000) is None
    with pytest.raises(FrameTooLong):
        skipper.feed(b"x" * 1_000_000)
