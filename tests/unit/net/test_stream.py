"""A stream over a socketpair: what it reads, writes, and how it ends, exactly once."""

from __future__ import annotations

import _socket
import socket
import struct
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from gtask.net.lingerer import LINGER_BYTES
from gtask.net.reactor import current_reactor
from gtask.net.stream import CLOSED, FLUSHING, OPEN, Stream, StreamState

from ...support.hub import until

MORE_THAN_THE_KERNEL_TAKES = b"x" * 4_000_000


class Recorder(Stream):
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__(current_reactor())
        self.data = b""
        self.has_ended = False
        self.flushes = 0
        self.reasons: list[str] = []

    def _received(self, data: bytes) -> None:
        self.data += data

    def _ended(self) -> None:
        self.has_ended = True

    def _flushed(self) -> None:
        self.flushes += 1

    def _closed(self, reason: str) -> None:
        self.reasons.append(reason)


def opened(end: Any) -> Recorder:
    recorder = Recorder()
    recorder._open(_socket.socket(end.family, end.type, 0, end.detach()))
    return recorder


@pytest.fixture
def pair() -> Iterator[tuple[Any, Recorder]]:
    near, far = gevent.socket.socketpair()
    recorder = opened(far)
    with near:
        yield near, recorder
    recorder._abort("over")


@pytest.fixture
def tcp_pair() -> Iterator[tuple[Any, Recorder]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = gevent.socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    recorder = opened(far)
    with near:
        yield near, recorder
    recorder._abort("over")


def take_all(peer: Any) -> bytes:
    data = b""
    while more := peer.recv(1 << 20):
        data += more
    return data


# -- reading ----------------------------------------------------------------------------------


def test_it_reads_and_counts(pair):
    peer, stream = pair
    assert stream.state == OPEN
    peer.sendall(b"one")
    until(lambda: stream.data == b"one")
    peer.sendall(b"two")
    until(lambda: stream.data == b"onetwo")
    assert stream.bytes_read == 6


def test_a_peer_that_sends_no_more_is_told_once_and_may_still_be_answered(pair):
    peer, stream = pair
    peer.sendall(b"last")
    peer.shutdown(socket.SHUT_WR)
    until(lambda: stream.has_ended)
    assert (stream.data, stream.state) == (b"last", OPEN)
    stream._write(b"answer")
    assert peer.recv(100) == b"answer"


def test_what_comes_in_a_pause_is_read_after_it(pair):
    peer, stream = pair
    stream._pause()
    peer.sendall(b"waits")
    gevent.sleep(0.02)
    assert stream.data == b""
    stream._resume()
    until(lambda: stream.data == b"waits")


def test_a_reset_closes_it_with_the_kernels_reason(tcp_pair):
    peer, stream = tcp_pair
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    until(lambda: stream.reasons)
    assert stream.reasons == ["Connection reset by peer"]
    assert stream.state == CLOSED


# -- writing ----------------------------------------------------------------------------------


def test_what_the_kernel_takes_is_not_kept(pair):
    peer, stream = pair
    stream._write(b"at once")
    assert (stream._buffered, stream.bytes_written) == (0, 7)
    assert peer.recv(100) == b"at once"
    assert stream.flushes == 0


def test_what_it_does_not_take_is_kept_in_order_and_its_end_is_told(pair):
    peer, stream = pair
    stream._write(MORE_THAN_THE_KERNEL_TAKES)
    stream._write(b"behind it")
    assert stream._buffered > 1_000_000
    assert stream.bytes_written + stream._buffered == len(MORE_THAN_THE_KERNEL_TAKES) + 9
    received = b""
    while len(received) < len(MORE_THAN_THE_KERNEL_TAKES) + 9:
        received += peer.recv(1 << 20)
    assert received == MORE_THAN_THE_KERNEL_TAKES + b"behind it"
    until(lambda: stream.flushes == 1)
    assert stream._buffered == 0


def test_writing_to_a_peer_that_has_gone_closes_it(pair):
    peer, stream = pair
    stream._pause()
    peer.close()
    stream._write(b"lost")
    assert stream.reasons == ["Broken pipe"]


# -- closing ----------------------------------------------------------------------------------


def test_closing_with_nothing_to_send_is_at_once(pair):
    peer, stream = pair
    stream._close("why")
    assert (stream.state, stream.reasons) == (CLOSED, ["why"])
    assert peer.recv(1) == b""


def test_closing_sends_what_waits_first(pair):
    peer, stream = pair
    stream._write(MORE_THAN_THE_KERNEL_TAKES)
    stream._close("why")
    assert (stream.state, stream.reasons) == (FLUSHING, [])
    assert take_all(peer) == MORE_THAN_THE_KERNEL_TAKES
    assert (stream.state, len(stream.reasons)) == (CLOSED, 1)
    assert stream.flushes == 0


def test_aborting_drops_what_waits(pair):
    peer, stream = pair
    stream._write(MORE_THAN_THE_KERNEL_TAKES)
    stream._abort("now")
    assert stream.reasons == ["now"]
    assert len(take_all(peer)) < len(MORE_THAN_THE_KERNEL_TAKES)


def test_it_ends_once_whatever_is_called(pair):
    _, stream = pair
    for end in (stream._close, stream._abort, stream._close, stream._abort):
        end(end.__name__)
    assert stream.reasons == ["_close"]


def test_nothing_is_read_once_it_closes(pair):
    peer, stream = pair
    stream._write(MORE_THAN_THE_KERNEL_TAKES)
    stream._close("why")
    peer.sendall(b"late")
    stream._resume()
    gevent.sleep(0.02)
    assert (stream.state, stream.data) == (FLUSHING, b"")


def test_lingering_saves_the_last_words_from_a_reset(tcp_pair):
    peer, stream = tcp_pair
    stream._pause()
    peer.sendall(b"unread")  # closing now would reset the connection
    stream._write(b"the last words")
    stream._close("why", linger=True)
    assert stream.state == CLOSED
    peer.sendall(b"and more")
    assert take_all(peer) == b"the last words"


def test_lingering_has_a_limit(tcp_pair):
    peer, stream = tcp_pair
    stream._close("why", linger=True)
    with pytest.raises(OSError, match=r"reset|pipe"):
        peer.sendall(bytes(2 * LINGER_BYTES))


def test_states_only_move_down():
    assert list(StreamState) == sorted(StreamState)
    assert OPEN < FLUSHING < CLOSED
