"""The calling end: what it keeps before it is connected, and who may end that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import gevent.socket
import pytest

from gtask.address import Address
from gtask.net.calling import CallingConnection
from gtask.net.connection import CONNECT_FAILED, SEND_FAILED
from gtask.net.stream import StreamState

from ...support.hub import until


@pytest.fixture
def listener() -> Iterator[Any]:
    """A listening socket; a test accepts from it."""
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener


def calling(listener: Any, **options: Any) -> tuple[CallingConnection, list[tuple[Any, ...]]]:
    """One that leads to `listener`, and its events as (name, further arguments)."""
    connection = CallingConnection(Address("text", *listener.getsockname()), **options)
    events: list[tuple[Any, ...]] = []
    for name in ("on_connect", "on_message", "on_close", "on_error"):
        record = lambda _connection, *args, name=name: events.append((name, *args))  # noqa: E731
        setattr(connection, name, record)
    return connection, events


def test_an_address_does_as_well_as_a_url(listener):
    connection, _ = calling(listener)
    host, port = listener.getsockname()
    assert connection.remote_address == f"{host}:{port}"
    assert CallingConnection(f"Text://{host}:{port}").address == connection.address
    with pytest.raises(ValueError, match="text:// only"):
        CallingConnection("websocket://127.0.0.1:1")


def test_what_is_kept_before_it_is_connected_is_bounded(listener):
    connection, events = calling(listener, max_send_buffer_bytes=10)
    assert connection.send("123456789")
    assert not connection.send("past the limit")
    until(lambda: events)
    assert events[0][:2] == ("on_error", SEND_FAILED)
    connection.connect()
    peer, _ = listener.accept()
    assert peer.recv(100) == b"123456789\n"
    until(lambda: connection.send("room again"))
    connection.destroy()
    peer.close()


def test_it_moves_from_state_to_state(listener):
    connection, events = calling(listener)
    assert connection.state == StreamState.INITIAL
    connection.connect()
    assert connection.state == StreamState.CONNECTING
    until(lambda: events == [("on_connect",)])
    assert connection.state == StreamState.OPEN
    connection.close()
    until(lambda: events[-1] == ("on_close",))
    assert connection.state == StreamState.CLOSED


def test_a_connect_that_fails_says_where(listener):
    connection, events = calling(listener)
    listener.close()
    connection.connect()
    until(lambda: ("on_close",) in events)
    name, code, why = events[0]
    assert (name, code) == ("on_error", CONNECT_FAILED)
    assert why.startswith(f"connect {connection.remote_address}: ")


def test_a_reconnect_forgets_half_a_frame_and_what_was_not_sent(listener):
    connection, events = calling(listener)
    connection.connect()
    first, _ = listener.accept()
    first.sendall(b"whole\nhalf")
    until(lambda: ("on_message", "whole") in events)
    connection.reconnect()
    connection.send("for the second")
    second, _ = listener.accept()
    assert first.recv(10) == b""
    assert second.recv(100) == b"for the second\n"
    second.sendall(b"line\n")
    until(lambda: events[-1] == ("on_message", "line"))
    assert [event[0] for event in events].count("on_close") == 1
    connection.destroy()
    first.close()
    second.close()


def test_a_planned_reconnect_is_ended_by_destroy(listener):
    connection, events = calling(listener)
    connection.connect()
    until(lambda: events)
    connection.reconnect(0.02)
    connection.destroy()
    until(lambda: events[-1] == ("on_close",))
    gevent.sleep(0.05)
    assert connection.state == StreamState.CLOSED
    assert events == [("on_connect",), ("on_close",)]


def test_closing_one_that_was_never_connected_tells_nobody(listener):
    connection, events = calling(listener)
    connection.send("x")
    connection.close()
    gevent.sleep(0.01)
    assert (connection.state, events) == (StreamState.CLOSED, [])
    assert not connection.send("late")


def test_it_does_not_linger(listener):
    """A client that closes wants no more of what comes: unread input resets the connection."""
    connection, events = calling(listener)
    connection.connect()
    peer, _ = listener.accept()
    until(lambda: events)
    connection.pause_recv()
    peer.sendall(b"unread\n")
    gevent.sleep(0.01)
    connection.close()
    with pytest.raises(ConnectionResetError):
        peer.recv(10)
    peer.close()
