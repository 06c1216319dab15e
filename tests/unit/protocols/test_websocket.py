"""The websocket codec: any split, exact limits, every rule of RFC 6455 that a peer can break."""

from __future__ import annotations

import os
import struct
import tracemalloc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.protocols.websocket import (
    BINARY,
    BROKEN_PROTOCOL,
    CLOSE,
    CONTINUATION,
    INVALID_DATA,
    NO_CODE,
    PING,
    PONG,
    TEXT,
    TOO_BIG,
    MessageDecoder,
    accept_key,
    apply_mask,
    encode_close,
    encode_frame,
    is_close_code,
)

from ...support.websocket import close_frame, frame

LIMIT = 1 << 20


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


def decode(*pieces: bytes, limit: int = LIMIT):
    """The events of the pieces, and the code of the error or None."""
    decoder = MessageDecoder(limit)
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return events, decoder.error.code if decoder.error else None


messages = st.one_of(
    st.tuples(st.just(TEXT), st.text(max_size=200)),
    st.tuples(st.just(BINARY), st.binary(max_size=200)),
)
controls = st.tuples(st.sampled_from([PING, PONG]), st.binary(max_size=125))


@st.composite
def streams(draw):
    """Messages in fragments with control frames in between: the bytes and what they mean."""
    stream, events = b"", []
    for opcode, value in draw(st.lists(messages, max_size=4)):
        payload = value.encode() if opcode == TEXT else value
        parts = cut(payload, draw(st.lists(st.integers(0), max_size=3))) or [b""]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            stream += frame(CONTINUATION if number else opcode, part, fin=is_last)
            if is_last:
                events.append((opcode, value))
            for control in draw(st.lists(controls, max_size=1)):
                stream += frame(*control)
                events.append(control)
    return stream, events


@given(streams(), st.lists(st.integers(0)))
def test_any_split_gives_the_same_messages(what, places):
    stream, events = what
    assert decode(*cut(stream, places)) == (events, None)


@given(st.binary(max_size=100), st.lists(st.integers(0)))
def test_any_bytes_fail_alike_however_they_are_split(stream, places):
    assert decode(*cut(stream, places)) == decode(stream)


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_the_mask_is_that_of_the_rfc_and_its_own_inverse(payload, mask):
    masked = apply_mask(payload, mask)
    assert masked == bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    assert apply_mask(masked, mask) == payload


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 100_000])
def test_lengths_are_encoded_minimally(length):
    payload = os.urandom(length)
    assert decode(frame(BINARY, payload)) == ([(BINARY, payload)], None)
    encoded = encode_frame(BINARY, payload)
    assert encoded.endswith(payload)
    assert len(encoded) - length == (2 if length < 126 else 4 if length < 65536 else 10)


@pytest.mark.parametrize(
    "broken",
    [
        frame(TEXT, b"x", rsv=1),
        frame(TEXT, b"x", rsv=2),
        frame(TEXT, b"x", rsv=4),
        frame(TEXT, b"x", masked=False),
        *(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        frame(PING, b"x", fin=False),
        frame(CLOSE, b"", fin=False),
        frame(PING, b"x" * 126),
        frame(CONTINUATION, b"x"),
        frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"),
        struct.pack("!BBH", 0x82, 0x80 | 126, 125) + bytes(4 + 125),
        struct.pack("!BBQ", 0x82, 0x80 | 127, 65535) + bytes(4 + 65535),
        struct.pack("!BBQ", 0x82, 0x80 | 127, 1 << 63),
        frame(CLOSE, b"x"),
        *(close_frame(c) for c in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000)),
    ],
    ids=lambda _: "broken",  # masks are random, names are not to be
)
def test_a_broken_rule_is_a_protocol_error(broken):
    good = frame(TEXT, b"before")
    assert decode(good + broken + good) == ([(TEXT, "before")], BROKEN_PROTOCOL)
    assert decode(good, broken, good) == ([(TEXT, "before")], BROKEN_PROTOCOL)


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
)
def test_close_codes_that_may_be_sent(code):
    assert is_close_code(code)
    assert decode(close_frame(code, b"why")) == ([(CLOSE, (code, "why"))], None)


def test_a_close_may_hold_no_code():
    assert decode(close_frame()) == ([(CLOSE, (NO_CODE, ""))], None)


def test_nothing_is_taken_after_a_close():
    decoder = MessageDecoder(LIMIT)
    assert decoder.feed(close_frame(1000) + frame(TEXT, b"late")) == [(CLOSE, (1000, ""))]
    assert decoder.failed
    assert decoder.feed(frame(TEXT, b"later")) == []
    assert decoder.error is None


@pytest.mark.parametrize(
    "bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"ab\xe2\x82", b"\x80"]
)
def test_text_must_be_utf8(bad):
    assert decode(frame(TEXT, bad)) == ([], INVALID_DATA)
    assert decode(close_frame(1000, bad)) == ([], INVALID_DATA)
    halves = frame(TEXT, bad[:1], fin=False) + frame(CONTINUATION, bad[1:])
    assert decode(halves) == ([], INVALID_DATA)
    assert decode(frame(BINARY, bad)) == ([(BINARY, bad)], None)


def test_bad_text_fails_before_its_last_fragment():
    assert decode(frame(TEXT, b"good", fin=False) + frame(0, b"\xff", fin=False)) == (
        [],
        INVALID_DATA,
    )


def test_a_character_may_be_cut_by_fragments():
    text = "작업 완료 🙂".encode()
    parts = [frame(0 if i else TEXT, text[i : i + 1], fin=False) for i in range(len(text))]
    assert decode(*parts, frame(0)) == ([(TEXT, text.decode())], None)


@given(st.integers(1, 40), st.lists(st.integers(0, 20), min_size=1, max_size=4))
def test_the_limit_is_exact_for_a_message_and_its_fragments(limit, lengths):
    total = sum(lengths)
    parts = [
        frame(CONTINUATION if i else BINARY, b"x" * n, fin=i == len(lengths) - 1)
        for i, n in enumerate(lengths)
    ]
    good = ([(BINARY, b"x" * total)], None)
    assert decode(*parts, limit=limit) == (([], TOO_BIG) if total > limit else good)


@pytest.mark.parametrize("claim", [LIMIT + 1, 8 << 30, 1 << 40, (1 << 63) - 1])
def test_the_header_alone_is_refused_when_it_claims_too_much(claim):
    decoder = MessageDecoder(LIMIT)
    tracemalloc.start()
    try:
        assert decoder.feed(struct.pack("!BBQ", 0x82, 0xFF, claim)) == []
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert decoder.error is not None
    assert decoder.error.code == TOO_BIG


def test_empty_fragments_are_not_collected():
    decoder = MessageDecoder(LIMIT)
    decoder.feed(frame(TEXT, b"", fin=False))
    empty = frame(CONTINUATION, b"", fin=False) * 1000
    decoder.feed(empty)
    tracemalloc.start()
    try:
        for _ in range(20):
            assert decoder.feed(empty) == []
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    assert decoder.feed(frame(CONTINUATION, b"end")) == [(TEXT, "end")]


def test_one_byte_at_a_time():
    text = "x" * 70_000
    stream = frame(TEXT, text.encode()) + frame(PING, b"?") + close_frame(1000)
    decoder = MessageDecoder(LIMIT)
    events = [event for byte in stream for event in decoder.feed(bytes((byte,)))]
    assert events == [(TEXT, text), (PING, b"?"), (CLOSE, (1000, ""))]


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000])
def test_codes_that_must_not_be_sent_are_refused(code):
    with pytest.raises(ValueError, match="not a close code"):
        encode_close(code)


def test_close_frames_fit_a_control_frame():
    assert encode_close(NO_CODE) == b"\x88\x00"
    assert encode_close(4000, "bye") == b"\x88\x05\x0f\xa0bye"
    long = encode_close(1000, "é" * 100)
    assert long[1] <= 125
    assert long[4:].decode() == "é" * 61


def test_accept_key():
    # The example of RFC 6455, section 1.3.
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    for bad in ("", "abc", "dGhlIHNhbXBsZSBub25jZQ", "dGhl", "é", "dGhlIHNhbXBsZSBub25jZQ==,x"):
        assert accept_key(bad) is None
