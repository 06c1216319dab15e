"""The laws of the text framing, each as a property."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.errors import ProtocolError
from gtask.protocols.text import TextDecoder, encode_frame

payloads = st.binary(max_size=60).map(lambda b: b.replace(b"\n", b"").rstrip(b"\r"))


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(edges)]


def decode(pieces: list[bytes], limit: int = 1000) -> tuple[list[bytes], bool]:
    decoder = TextDecoder(limit)
    frames = [frame for piece in pieces for frame in decoder.feed(piece)]
    return frames, decoder.failed


@given(st.lists(payloads), st.lists(st.integers(0)), st.binary(max_size=20))
def test_any_split_gives_the_same_frames(frames, places, rest):
    rest = rest.replace(b"\n", b"")
    stream = b"".join(encode_frame(frame) for frame in frames) + rest
    assert decode(cut(stream, places)) == (frames, False)


@given(st.binary(max_size=300), st.lists(st.integers(0)))
def test_any_bytes_give_the_lines_between_line_feeds(stream, places):
    frames, failed = decode(cut(stream, places))
    assert frames == [line.rstrip(b"\r") for line in stream.split(b"\n")[:-1]]
    assert not failed


@given(st.lists(st.integers(0, 12), min_size=1), st.lists(st.integers(0)), st.integers(1, 10))
def test_the_limit_is_exact_for_each_frame_and_any_split(lengths, places, limit):
    stream = b"".join(b"x" * length + b"\n" for length in lengths)
    good = []
    for length in lengths:
        if length > limit:
            break
        good.append(b"x" * length)
    frames, failed = decode(cut(stream, places), limit)
    assert frames == good
    assert failed == (len(good) < len(lengths))


def test_the_limit_trips_before_the_line_feed():
    decoder = TextDecoder(10)
    assert decoder.feed(b"ok\n" + b"x" * 10) == [b"ok"]
    assert not decoder.failed
    assert decoder.feed(b"x") == []
    assert decoder.failed
    assert "10 bytes" in str(decoder.error())


def test_a_failed_decoder_stays_failed():
    decoder = TextDecoder(3)
    decoder.feed(b"xxxx")
    assert decoder.feed(b"\na\n") == []


def test_all_trailing_carriage_returns_are_trimmed_and_nothing_else():
    assert decode([b"ab\r\r\n\ra b\t\r\n\r\n\n"])[0] == [b"ab", b"\ra b\t", b"", b""]


def test_one_byte_at_a_time_is_linear():
    decoder = TextDecoder(1 << 20)
    for _ in range(200_000):
        decoder.feed(b"x")
    assert decoder.is_mid_frame
    assert decoder.feed(b"\n") == [b"x" * 200_000]
    assert not decoder.is_mid_frame


def test_a_payload_with_a_line_feed_is_refused():
    with pytest.raises(ProtocolError):
        encode_frame(b"a\nb")
