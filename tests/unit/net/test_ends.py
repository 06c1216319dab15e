"""How connections end: what is told then and what not, TLS that fails, and a start over."""

from __future__ import annotations

import _socket
import contextlib
import socket
from typing import Any

import gevent
import gevent.socket
import pytest

from gtask.address import Address
from gtask.net.calling import CallingConnection
from gtask.net.connection import CONNECT_FAILED, TLS_FAILED, TcpConnection
from gtask.net.reactor import current_reactor
from gtask.net.stream import StreamState
from gtask.protocols.tls import TlsFilter

from ...support import certificates
from ...support.hub import until

CALLBACKS = (
    "on_connect",
    "on_message",
    "on_close",
    "on_error",
    "on_buffer_full",
    "on_buffer_drain",
)
MUCH = "x" * 8_000_000


def recorded(connection: Any) -> list[tuple[Any, ...]]:
    events: list[tuple[Any, ...]] = []
    for name in CALLBACKS:
        record = lambda _connection, *args, name=name: events.append((name, *args))  # noqa: E731
        setattr(connection, name, record)
    return events


def names(events: list[tuple[Any, ...]]) -> list[str]:
    return [event[0] for event in events]


def accepted(tls: TlsFilter | None = None, **options: Any) -> tuple[Any, TcpConnection, list[Any]]:
    near, far = gevent.socket.socketpair()
    connection = TcpConnection(max_send_buffer_bytes=64_000_000, **options)
    events = recorded(connection)
    connection._accept(_socket.socket(far.family, far.type, 0, far.detach()), "peer", tls)
    return near, connection, events


@pytest.fixture
def listener():
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener


@pytest.fixture
def send_timeout():
    debts = current_reactor().debts
    before = debts.send_timeout
    debts.send_timeout = 0.2
    yield
    debts.send_timeout = before


def calling(listener: Any, **options: Any) -> tuple[CallingConnection, list[tuple[Any, ...]]]:
    connection = CallingConnection(Address("text", *listener.getsockname()), **options)
    return connection, recorded(connection)


# -- nothing after the end ---------------------------------------------------------------------


@pytest.mark.parametrize("answer", ["no", MUCH])
@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_nothing_is_heard_after_close(answer, verb):
    near, connection, events = accepted()

    def on_message(connection, data):
        events.append(("on_message", data))
        if data == "evil":
            connection.send(answer)
            getattr(connection, verb)()

    connection.on_message = on_message
    near.sendall(b"good\nevil\nmore\nagain\n")
    until(lambda: len(events) >= 3)
    with contextlib.suppress(OSError):  # it is closed already
        near.sendall(b"later\n")
    gevent.sleep(0.05)
    near.close()
    until(lambda: ("on_close",) in events)
    gevent.sleep(0.02)
    told = [event for event in events if event[0] != "on_buffer_full"]
    assert told == [("on_connect",), ("on_message", "good"), ("on_message", "evil"), ("on_close",)]


def test_closing_in_another_greenlet_stops_what_waits():
    near, connection, events = accepted()
    connection.on_message = lambda connection, data: (
        events.append(("on_message", data)),
        gevent.sleep(0.05),
    )
    near.sendall(b"1\n2\n3\n")
    until(lambda: ("on_message", "1") in events)
    connection.close()
    until(lambda: ("on_close",) in events)
    gevent.sleep(0.1)
    assert events == [("on_connect",), ("on_message", "1"), ("on_close",)]


def test_a_close_that_cannot_flush_ends(send_timeout):
    near, connection, events = accepted()
    until(lambda: events)
    connection.send(MUCH)
    connection.close()
    assert connection.state == StreamState.FLUSHING
    until(lambda: ("on_close",) in events)
    assert names(events).count("on_close") == 1
    near.close()


def test_a_caller_that_waits_for_its_server_is_not_ended(listener, send_timeout):
    connection, events = calling(listener, max_send_buffer_bytes=64_000_000)
    connection.connect()
    peer, _ = listener.accept()
    until(lambda: events)
    connection.send(MUCH)
    gevent.sleep(0.5)
    assert connection.state == StreamState.OPEN
    connection.close()
    until(lambda: ("on_close",) in events)
    peer.close()


# -- TLS ---------------------------------------------------------------------------------------


def serve_tls(listener: Any, **options: Any) -> tuple[TcpConnection, list[Any]]:
    peer, _ = listener.accept()
    connection = TcpConnection(**options)
    events = recorded(connection)
    plain = _socket.socket(peer.family, peer.type, 0, peer.detach())
    connection._accept(plain, "peer", TlsFilter(certificates.serving(), server_side=True))
    return connection, events


def test_on_connect_comes_after_the_handshake_at_both_ends(listener):
    connection, events = calling(listener, ssl_context=certificates.trusting())
    connection.send("before")
    connection.connect()
    gevent.sleep(0.05)
    assert connection.state == StreamState.CONNECTING
    assert not events
    served, told = serve_tls(listener)
    assert not told
    until(lambda: len(told) == 2)
    assert told == [("on_connect",), ("on_message", "before")]
    assert events == [("on_connect",)]
    assert connection.state == StreamState.OPEN
    served.send("answer")
    until(lambda: ("on_message", "answer") in events)
    served.close()
    until(lambda: ("on_close",) in events)


def test_a_certificate_that_is_not_trusted_is_told_at_both_ends(listener, caplog):
    connection, events = calling(listener, ssl_context=certificates.distrusting())
    connection.send("secret")
    connection.connect()
    _, told = serve_tls(listener)
    until(lambda: ("on_close",) in events and ("on_close",) in told)
    for each in (events, told):
        assert names(each) == ["on_error", "on_close"]
        assert each[0][1] == CONNECT_FAILED
        assert "TLS" in each[0][2]
    assert "self-signed" in events[0][2] or "self signed" in events[0][2]
    assert caplog.text.count("TLS") >= 2


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_what_is_no_tls_server_is_told(listener, words):
    """One that says nothing, one that speaks plain text, and one that hangs up."""
    connection, events = calling(listener, ssl_context=certificates.trusting(), connect_timeout=0.3)
    connection.send("secret")
    connection.connect()
    peer, _ = listener.accept()
    if words is None:
        peer.close()
    else:
        peer.sendall(words)
    until(lambda: ("on_close",) in events)
    assert names(events) == ["on_error", "on_close"]
    assert events[0][1] == CONNECT_FAILED
    assert "TLS" in events[0][2] or "reset" in events[0][2]
    peer.close()


def test_what_is_no_tls_caller_is_told(caplog):
    near, _, events = accepted(TlsFilter(certificates.serving(), server_side=True))
    near.sendall(b"GET / HTTP/1.1\r\n\r\n")
    until(lambda: ("on_close",) in events)
    assert names(events) == ["on_error", "on_close"]
    assert events[0][1] == CONNECT_FAILED
    assert "TLS" in caplog.text


def test_a_handshake_that_does_not_come_is_told(monkeypatch):
    debts = current_reactor().debts
    monkeypatch.setattr(debts, "handshake_timeout", 0.1)
    near, _, events = accepted(TlsFilter(certificates.serving(), server_side=True))
    until(lambda: ("on_close",) in events)
    assert events == [
        ("on_error", CONNECT_FAILED, "TLS: no handshake within 0.1 s"),
        ("on_close",),
    ]
    near.close()


def test_rubbish_after_the_handshake_is_told(listener):
    connection, events = calling(listener, ssl_context=certificates.trusting())
    connection.connect()
    served, told = serve_tls(listener)
    until(lambda: told and events)
    served._socket.send(b"\x17\x03\x03\x00\x05rubbi")
    until(lambda: ("on_close",) in events)
    assert names(events) == ["on_connect", "on_error", "on_close"]
    assert events[1][1] == TLS_FAILED


@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_a_handshake_may_be_given_up(listener, verb):
    connection, events = calling(listener, ssl_context=certificates.trusting())
    connection.connect()
    peer, _ = listener.accept()
    assert peer.recv(10)
    getattr(connection, verb)()
    until(lambda: events)
    gevent.sleep(0.02)
    assert events == [("on_close",)]
    peer.close()


# -- again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["close", "destroy"])
def test_a_planned_reconnect_is_ended(listener, verb):
    connection, events = calling(listener)
    connection.on_close = lambda connection: connection.reconnect(0.05)
    connection.connect()
    peer, _ = listener.accept()
    peer.close()
    until(lambda: connection._timer is not None)
    getattr(connection, verb)()
    gevent.sleep(0.1)
    assert connection.state == StreamState.CLOSED
    assert names(events) == ["on_connect"]


def test_a_reconnect_starts_clean(listener):
    connection, events = calling(listener)
    connection.connect()
    first, _ = listener.accept()
    until(lambda: events)
    first.sendall(b"a line\nhalf of one")
    until(lambda: len(events) == 2)
    connection.pause_recv()
    first.sendall(b"\nunheard\n")
    gevent.sleep(0.02)
    connection.reconnect()
    second, _ = listener.accept()
    second.sendall(b"fresh\n")
    until(lambda: ("on_message", "fresh") in events)
    assert events == [
        ("on_connect",),
        ("on_message", "a line"),
        ("on_close",),
        ("on_connect",),
        ("on_message", "fresh"),
    ]
    assert connection.bytes_read == len(b"fresh\n")
    assert connection.bytes_written == 0
    connection.destroy()
    first.close()
    second.close()


def test_the_end_of_the_old_connection_is_not_that_of_the_new_one(listener):
    connection, events = calling(listener)

    def on_message(connection, data):
        events.append(("on_message", data))
        if data == "goaway":
            connection.reconnect()
            gevent.sleep(0.1)

    connection.on_message = on_message
    connection.connect()
    first, _ = listener.accept()
    first.sendall(b"goaway\nbehind it\n")
    first.shutdown(socket.SHUT_WR)
    second, _ = listener.accept()
    second.sendall(b"hello\n")
    until(lambda: ("on_message", "hello") in events)
    assert connection.state == StreamState.OPEN
    assert names(events) == ["on_connect", "on_message", "on_close", "on_connect", "on_message"]
    connection.destroy()
    first.close()
    second.close()


@pytest.mark.parametrize("after", [(0, 0), (0.01, 0.01), (0, 0.01), (0.01, 0)])
def test_both_callbacks_may_ask_for_a_reconnect(after):
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        connection, _ = calling(listener)  # which does not listen yet
        ends = []
        connection.on_error = lambda connection, *_: connection.reconnect(after[0])
        connection.on_close = lambda connection: (ends.append(1), connection.reconnect(after[1]))
        connection.connect()
        until(lambda: len(ends) >= 3)
        listener.listen(5)
        accepted = []
        with gevent.Timeout(0.5, False):
            while True:
                accepted.append(listener.accept()[0])
        assert len(accepted) == 1
        assert connection.state == StreamState.OPEN
        connection.on_close = None
        connection.destroy()
        accepted[0].close()


def test_what_is_sent_while_a_reconnect_waits_is_refused(listener):
    connection, events = calling(listener)
    connection.connect()
    peer, _ = listener.accept()
    until(lambda: events)
    connection.reconnect(0.05)
    assert not connection.send("lost")
    connection.close()
    peer.close()
