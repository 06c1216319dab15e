"""A text connection over a socketpair: frames and callbacks, in order and never two at once."""

from __future__ import annotations

import _socket
from collections.abc import Iterator
from typing import Any

import gevent
import gevent.event
import gevent.socket
import pytest

from gtask.callbacks import CONNECTION_CALLBACKS
from gtask.net.connection import SEND_FAILED, TcpConnection

from ...support.hub import until


class Recorded(TcpConnection):
    """The accepted end; notes its events as (name, further arguments)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.events: list[tuple[Any, ...]] = []
        for name in CONNECTION_CALLBACKS:
            setattr(self, name, self.recorder(name))

    def recorder(self, name: str) -> Any:
        return lambda _connection, *args: self.events.append((name, *args))

    def names(self) -> list[str]:
        return [event[0] for event in self.events]


def accepted(**options: Any) -> tuple[Any, Recorded]:
    near, far = gevent.socket.socketpair()
    connection = Recorded(**options)
    connection._accept(_socket.socket(far.family, far.type, 0, far.detach()), "peer")
    return near, connection


@pytest.fixture
def pair() -> Iterator[tuple[Any, Recorded]]:
    near, connection = accepted()
    until(lambda: connection.events == [("on_connect",)])
    connection.events.clear()
    with near:
        yield near, connection
    connection.destroy()


@pytest.fixture
def small() -> Iterator[tuple[Any, Recorded]]:
    """Its limits are soon reached."""
    near, connection = accepted(max_frame_bytes=100, max_send_buffer_bytes=1000)
    until(lambda: connection.events)
    connection.events.clear()
    with near:
        yield near, connection
    connection.destroy()


def fill(connection: TcpConnection) -> None:
    """Send until no more is taken."""
    while connection.send("x" * 100_000):
        pass


# -- messages ---------------------------------------------------------------------------------


def test_each_line_is_a_message(pair):
    peer, connection = pair
    peer.sendall(b"one\r\ntwo\nhal")
    until(lambda: len(connection.events) == 2)
    peer.sendall(b"f\n")
    until(lambda: len(connection.events) == 3)
    assert connection.events == [("on_message", text) for text in ("one", "two", "half")]


def test_what_is_sent_is_a_line(pair):
    peer, connection = pair
    for data in ("text", b"bytes", bytearray(b"array"), memoryview(b"view")):
        assert connection.send(data)
    assert peer.recv(100) == b"text\nbytes\narray\nview\n"


def test_a_frame_that_is_too_long_ends_it_after_those_before(small):
    peer, connection = small
    peer.sendall(b"good\n" + b"x" * 101)
    until(lambda: "on_close" in connection.names())
    assert connection.events == [("on_message", "good"), ("on_close",)]
    assert peer.recv(1) == b""


# -- callbacks --------------------------------------------------------------------------------


def test_callbacks_run_in_order_and_never_two_at_once(pair):
    peer, connection = pair
    running, order = [], []

    def slow(_connection: TcpConnection, data: str) -> None:
        running.append(data)
        assert len(running) == 1
        gevent.sleep(0.001)
        order.append(data)
        running.clear()

    connection.on_message = slow
    for number in range(20):
        peer.sendall(b"%d\n" % number)
        gevent.sleep(0.0005)
    until(lambda: len(order) == 20)
    assert order == [str(number) for number in range(20)]


def test_a_peer_is_held_back_while_a_callback_blocks(pair):
    peer, connection = pair
    gate = gevent.event.Event()
    connection.on_message = lambda _connection, _data: gate.wait()
    sending = gevent.spawn(peer.sendall, b"x\n" * 2_000_000)
    until(lambda: connection._stalled)
    read = connection.bytes_read
    gevent.sleep(0.02)
    assert connection.bytes_read == read
    sending.kill()
    gate.set()


def test_the_end_of_the_peer_comes_after_its_messages(pair):
    peer, connection = pair
    connection.on_message = lambda connection, data: connection.send(data)
    peer.sendall(b"1\n2\nhalf")
    peer.shutdown(_socket.SHUT_WR)
    until(lambda: connection.events == [("on_close",)])
    assert peer.recv(100) == b"1\n2\n"


def test_there_is_one_on_close_and_nothing_after_it(pair):
    peer, connection = pair
    peer.sendall(b"1\n2\n3\n")

    def close(connection: TcpConnection, _data: str) -> None:
        for end in (connection.destroy, connection.close, connection.destroy):
            end()

    connection.on_message = close
    until(lambda: connection.events)
    gevent.sleep(0.02)
    assert connection.events == [("on_close",)]
    assert not connection.send("late")


def test_an_exception_is_logged_and_closes_it(pair, caplog):
    peer, connection = pair

    def fail(_connection: TcpConnection, _data: str) -> None:
        raise RuntimeError("on purpose")

    connection.on_message = fail
    peer.sendall(b"1\n2\n")
    until(lambda: connection.events)
    assert connection.events == [("on_close",)]
    assert caplog.text.count("RuntimeError: on purpose") == 1
    assert f"Recorded {connection.id} peer" in caplog.text


def test_a_greenlet_that_is_killed_in_a_callback_loses_no_event(pair, caplog):
    peer, connection = pair
    inside: list[Any] = []

    def killed(connection: Recorded, _data: str) -> None:
        connection.on_message = connection.recorder("on_message")
        inside.append(gevent.getcurrent())
        gevent.sleep(60)

    connection.on_message = killed
    peer.sendall(b"1\n2\n")
    until(lambda: inside)
    gevent.kill(inside[0])
    until(lambda: connection.events)
    assert connection.events == [("on_message", "2")]
    assert caplog.text == ""


# -- what waits to be sent --------------------------------------------------------------------


def test_a_full_buffer_is_told_refuses_and_is_told_when_empty(small):
    peer, connection = small
    fill(connection)
    until(lambda: len(connection.events) == 2)
    assert connection.events[0] == ("on_buffer_full",)
    assert connection.events[1][:2] == ("on_error", SEND_FAILED)
    while "on_buffer_drain" not in connection.names():
        peer.recv(1 << 20)
        gevent.sleep(0)
    assert connection.send("again")


def test_news_of_the_buffer_come_before_messages_that_wait(small):
    peer, connection = small
    gate, inside = gevent.event.Event(), gevent.event.Event()

    def block(connection: Recorded, _data: str) -> None:
        inside.set()
        gate.wait()
        connection.on_message = connection.recorder("on_message")

    connection.on_message = block
    peer.sendall(b"1\n2\n")
    assert inside.wait(5)
    fill(connection)
    gate.set()
    until(lambda: len(connection.events) == 3)
    assert connection.names() == ["on_buffer_full", "on_message", "on_error"]


# -- pausing, piping, knowing -----------------------------------------------------------------


def test_a_pause_holds_back_what_was_read_before_it(pair):
    _, connection = pair
    connection.pause_recv()
    connection._received(b"read before\n")
    gevent.sleep(0.02)
    assert connection.events == []
    connection.resume_recv()
    until(lambda: connection.events == [("on_message", "read before")])


def test_a_pipe_forwards_and_closes_with_its_source(pair):
    peer, source = pair
    other_peer, target = accepted()
    source.pipe(target)
    peer.sendall(b"through\n")
    assert other_peer.recv(100) == b"through\n"
    peer.close()
    assert other_peer.recv(100) == b""
    until(lambda: "on_close" in target.names())
    other_peer.close()


def test_what_it_knows_of_itself(pair):
    _, connection = pair
    assert repr(connection) == f"<Recorded {connection.id} peer OPEN>"
    assert connection.remote_address == "peer"
    connection.destroy()
    assert connection.local_address == ""
    assert "CLOSED" in repr(connection)
    assert TcpConnection().id > connection.id
