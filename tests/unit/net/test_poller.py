"""Streams behind one epoll: no edge may be lost."""

from __future__ import annotations

import _socket
import array
import contextlib
import os
import socket
import time

import gevent
import gevent.socket
import pytest

from gtask.net.poller import PolledStream, Poller
from gtask.net.reactor import current_reactor

from ...support.hub import until


class Reader(PolledStream):
    """Notes what it is told."""

    def __init__(self, poller):
        super().__init__(current_reactor(), poller)
        self.data = b""
        self.has_ended = False
        self.reads = 0

    def _received(self, data):
        self.reads += 1
        if data == b"crash":
            raise RuntimeError(data)
        self.data += data

    def _ended(self):
        self.has_ended = True

    def _closed(self, reason):
        self.reason = reason


@pytest.fixture
def poller():
    poller = Poller(current_reactor().loop, lambda: None)
    yield poller
    poller.close()


@pytest.fixture(params=[socket.AF_INET, socket.AF_UNIX])
def pair(request, poller):
    yield from connect(poller, request.param)


@pytest.fixture
def tcp_pair(poller):
    yield from connect(poller, socket.AF_INET)


def connect(poller, family):
    """A socket, and the stream at its other end."""
    if family == socket.AF_UNIX:
        near, far = gevent.socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = gevent.socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
    reader = Reader(poller)
    reader._open(_socket.socket(far.family, far.type, 0, far.detach()))
    with near:
        yield near, reader
    reader._abort("over")


def test_reads_all_that_one_edge_told_of(pair):
    peer, reader = pair
    text = os.urandom(1_000_000)
    peer.sendall(text)
    until(lambda: len(reader.data) == len(text))
    assert reader.data == text
    assert reader.reads > 10


def test_hears_of_the_end_that_came_with_the_last_words(pair):
    peer, reader = pair
    peer.sendall(b"bye")
    peer.close()
    until(lambda: reader.has_ended)
    assert reader.data == b"bye"


def test_reads_on_after_a_pause_what_came_in_it(pair):
    peer, reader = pair
    reader._pause()
    peer.sendall(b"one")
    gevent.sleep(0.05)
    assert reader.data == b""
    reader._resume()
    until(lambda: reader.data == b"one")
    reader._pause()
    peer.sendall(b"two")
    gevent.sleep(0.05)
    peer.close()
    gevent.sleep(0.05)
    reader._resume()
    until(lambda: reader.has_ended)
    assert reader.data == b"onetwo"


@contextlib.contextmanager
def read_in_two(reader):
    """What is sent meanwhile are two words, of which one read gives the first."""
    reader._pause()
    yield
    gevent.sleep(0.05)
    reader._resume()
    until(lambda: reader.data == b"onetwo")
    assert reader.reads == 2, "the kernel does not do any more what this is about"


def test_a_read_ends_at_urgent_data_and_is_not_the_last(tcp_pair):
    peer, reader = tcp_pair
    with read_in_two(reader):
        peer.sendall(b"one")
        peer.send(b"!", socket.MSG_OOB)
        peer.sendall(b"two")


def test_urgent_data_and_nothing_else_leaves_the_loop_at_rest(tcp_pair):
    peer, reader = tcp_pair
    peer.send(b"!", socket.MSG_OOB)
    gevent.sleep(0.05)
    before = time.thread_time()
    gevent.sleep(0.3)
    assert time.thread_time() - before < 0.1
    peer.sendall(b"more")
    until(lambda: reader.data == b"more")


@pytest.mark.parametrize("pair", [socket.AF_UNIX], indirect=True)
def test_a_read_ends_at_descriptors_and_is_not_the_last(pair):
    peer, reader = pair
    rights = array.array("i", [peer.fileno()])
    with read_in_two(reader):
        peer.sendmsg([b"one"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        peer.sendall(b"two")


def test_what_fails_in_one_stream_stays_there(poller, pair, tcp_pair, caplog):
    (bad, failing), (good, reader) = pair, tcp_pair
    bad.sendall(b"crash")
    good.sendall(b"fine")
    until(lambda: reader.data == b"fine")
    until(lambda: getattr(failing, "reason", "") == "reading failed")
    assert "RuntimeError: b'crash'" in caplog.text


def test_an_edge_of_a_closed_stream_that_a_child_holds_open_is_nobodys(pair, tcp_pair):
    (closed_peer, closed), (peer, reader) = pair, tcp_pair
    held = os.dup(closed._fd)  # as a child that was forked has it
    try:
        closed._abort("closed")
        closed_peer.sendall(b"for the closed one")
        peer.sendall(b"for the other")
        until(lambda: reader.data == b"for the other")
    finally:
        os.close(held)


def test_an_edge_without_data_is_nothing(tcp_pair):
    peer, reader = tcp_pair
    reader._may_read(1)
    assert reader.reads == 0
    peer.sendall(b"data")
    until(lambda: reader.data == b"data")
