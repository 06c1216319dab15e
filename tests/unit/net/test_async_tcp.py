"""`AsyncTcpConnection` against real sockets: what docs/callbacks.md promises a caller."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.server import StreamServer

from gtask.address import Address
from gtask.callbacks import CONNECTION_CALLBACKS
from gtask.net.async_tcp import AsyncTcpConnection
from gtask.net.connection import TcpConnection

from ...support.hub import until
from ...support.wait import SLOWNESS


def recorded(connection: TcpConnection) -> list[tuple[Any, ...]]:
    """The connection's events from now on, as (name, further arguments)."""
    events: list[tuple[Any, ...]] = []
    for name in CONNECTION_CALLBACKS:
        record = lambda _connection, *args, name=name: events.append((name, *args))  # noqa: E731
        setattr(connection, name, record)
    return events


@pytest.fixture
def echo() -> Iterator[str]:
    """The URL of a service that echoes."""

    def serve(sock: Any, _address: Any) -> None:
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    server = StreamServer(("127.0.0.1", 0), serve)
    server.start()
    yield f"text://127.0.0.1:{server.server_port}"
    server.stop()


@pytest.fixture
def listener() -> Iterator[Any]:
    """A listening socket; a test accepts from it."""
    with gevent.socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(5)
        yield listener


@pytest.fixture
def refused() -> Iterator[str]:
    """The URL of a port where nobody listens; it stays ours, so nobody else will."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield f"text://127.0.0.1:{holder.getsockname()[1]}"


def test_what_is_sent_before_connecting_goes_first(echo: str) -> None:
    connection = AsyncTcpConnection(echo)
    events = recorded(connection)
    connection.send("one")
    connection.send(b"two")
    connection.on_connect = lambda connection: connection.send("three")
    connection.connect()
    connection.connect()  # does nothing
    connection.send("2½")
    until(lambda: len(events) == 4)
    assert events == [("on_message", text) for text in ("one", "two", "2½", "three")]
    connection.close()
    until(lambda: events[-1] == ("on_close",))
    assert not connection.send("late")
    gevent.sleep(0.02)
    assert events.count(("on_close",)) == 1


def test_any_octets_survive_the_round_trip(echo: str) -> None:
    connection = AsyncTcpConnection(echo.replace("text", "Text"))
    events = recorded(connection)
    data = bytes(set(range(256)) - {10, 13})
    connection.connect()
    connection.send(data)
    until(lambda: len(events) == 2)
    text = events[1][1]
    assert text.encode("utf-8", "surrogateescape") == data
    connection.send(text)
    until(lambda: len(events) == 3)
    assert events[2] == events[1]
    connection.destroy()


def test_a_line_feed_or_a_number_cannot_be_sent(echo: str) -> None:
    connection = AsyncTcpConnection(echo)
    with pytest.raises(ValueError, match="line feed"):
        connection.send("a\nb")
    with pytest.raises(TypeError, match="not int"):
        connection.send(1)  # type: ignore[arg-type]


def test_a_refused_connect_is_an_error_and_an_end(refused: str) -> None:
    connection = AsyncTcpConnection(refused)
    events = recorded(connection)
    connection.send("lost")
    connection.connect()
    until(lambda: ("on_close",) in events)
    assert [event[:2] for event in events] == [("on_error", 1), ("on_close",)]
    assert "refused" in events[0][2]


def test_a_name_that_no_certificate_can_have_is_an_error_and_an_end(
    listener: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", listener.getsockname())]
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *_args, **_options: found)
    address = Address("text", "x" * 64, 1)
    connection = AsyncTcpConnection(address, ssl_context=ssl.create_default_context())
    events = recorded(connection)
    connection.connect()
    until(lambda: ("on_close",) in events)
    assert [event[:2] for event in events] == [("on_error", 1), ("on_close",)]
    assert ": TLS: " in events[0][2]


@pytest.mark.parametrize("callback", ["on_error", "on_close"])
@pytest.mark.parametrize("after", [0, 0.01])
def test_reconnect_is_possible_from_either_callback(
    refused: str, callback: str, after: float
) -> None:
    connection = AsyncTcpConnection(refused)
    events = recorded(connection)
    record = getattr(connection, callback)

    def again(connection: AsyncTcpConnection, *args: Any) -> None:
        record(connection, *args)
        if len(events) < 5:
            connection.reconnect(after)

    setattr(connection, callback, again)
    connection.connect()
    until(lambda: len(events) >= 6)
    gevent.sleep(0.05)
    assert [event[0] for event in events] == ["on_error", "on_close"] * 3


def test_a_connect_that_hangs_is_given_up() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full now
            connection = AsyncTcpConnection(f"text://127.0.0.1:{port}", connect_timeout=0.1)
            events = recorded(connection)
            connection.connect()
            until(lambda: ("on_close",) in events)
            assert [event[:2] for event in events] == [("on_error", 1), ("on_close",)]


def test_closing_while_connecting_ends_it_once(echo: str) -> None:
    connection = AsyncTcpConnection(echo)
    events = recorded(connection)
    connection.connect()
    connection.close()
    until(lambda: events)
    gevent.sleep(0.05)
    assert events == [("on_close",)]


def test_one_that_never_connected_has_no_end(echo: str) -> None:
    connection = AsyncTcpConnection(echo)
    events = recorded(connection)
    connection.send("x")
    connection.close()
    gevent.sleep(0.05)
    assert events == []


def test_a_server_that_goes_is_an_end(listener: Any) -> None:
    connection = AsyncTcpConnection(f"text://127.0.0.1:{listener.getsockname()[1]}")
    events = recorded(connection)
    connection.connect()
    peer, _ = listener.accept()
    peer.sendall(b"whole\nhalf")
    peer.close()
    until(lambda: ("on_close",) in events)
    assert events == [("on_connect",), ("on_message", "whole"), ("on_close",)]


def test_callbacks_run_one_at_a_time_and_may_block(echo: str) -> None:
    slow, quick = AsyncTcpConnection(echo), AsyncTcpConnection(echo)
    order: list[str] = []

    def on_message(_connection: TcpConnection, data: str | bytes) -> None:
        order.append(f"begin {data!s}")
        gevent.sleep(0.05)
        order.append(f"end {data!s}")

    slow.on_message = on_message
    quick.on_message = lambda _connection, data: order.append(data)
    for connection in (slow, quick):
        connection.connect()
    slow.send("a")
    slow.send("b")
    until(lambda: "begin a" in order)
    quick.send("quick")
    until(lambda: "end b" in order)
    order.remove("quick")
    assert order == ["begin a", "end a", "begin b", "end b"]
    slow.destroy()
    quick.destroy()


def test_an_exception_closes_that_connection(echo: str, caplog: pytest.LogCaptureFixture) -> None:
    connection = AsyncTcpConnection(echo)
    events = recorded(connection)

    def on_message(_connection: TcpConnection, data: str | bytes) -> None:
        raise RuntimeError("on purpose")

    connection.on_message = on_message
    connection.connect()
    connection.send("x")
    connection.send("y")
    until(lambda: ("on_close",) in events)
    assert events == [("on_connect",), ("on_close",)]
    assert caplog.text.count("RuntimeError: on purpose") == 1
    assert repr(connection).removesuffix("CLOSED>") in caplog.text.replace("OPEN>", "")


def test_a_reader_too_slow_fills_the_buffer_and_drains_it(listener: Any) -> None:
    connection = AsyncTcpConnection(
        f"text://127.0.0.1:{listener.getsockname()[1]}", max_send_buffer_bytes=100_000
    )
    events = recorded(connection)
    connection.connect()
    peer, _ = listener.accept()
    until(lambda: events == [("on_connect",)])
    message = "x" * 49_999
    sent = 0
    while connection.send(message):
        sent += 1
    until(lambda: len(events) == 3)
    names = [event[0] for event in events]
    assert names == ["on_connect", "on_buffer_full", "on_error"]
    assert events[2][1] == 2
    received = 0
    while received < sent * 50_000:
        received += len(peer.recv(1 << 20))
    until(lambda: ("on_buffer_drain",) in events)
    assert connection.send("again")
    assert peer.recv(100) == b"again\n"
    connection.destroy()


def test_pausing_holds_the_peer_back(echo: str) -> None:
    connection = AsyncTcpConnection(echo)
    events = recorded(connection)
    connection.connect()
    until(lambda: events)
    connection.pause_recv()
    connection.send("x")
    gevent.sleep(0.05)
    assert events == [("on_connect",)]
    connection.resume_recv()
    until(lambda: len(events) == 2)
    connection.destroy()


def test_a_pause_also_holds_what_was_read_before(listener: Any) -> None:
    connection = AsyncTcpConnection(f"text://127.0.0.1:{listener.getsockname()[1]}")
    events = recorded(connection)
    record = connection.on_message

    def one_at_a_time(connection: AsyncTcpConnection, data: str) -> None:
        record(connection, data)
        connection.pause_recv()

    connection.on_message = one_at_a_time
    connection.connect()
    peer, _ = listener.accept()
    peer.sendall(b"1\n2\n3\n")
    peer.close()
    for number in (1, 2, 3):
        until(lambda: len(events) == number + 1)  # noqa: B023
        gevent.sleep(0.02)
        assert events[-1] == ("on_message", str(number))
        connection.resume_recv()
    until(lambda: len(events) == 5)
    assert events[-1] == ("on_close",)


def test_pausing_oneself_until_the_buffer_is_drained(listener: Any) -> None:
    """An echo that reads no faster than it is read: nothing is lost, and it does not stop."""
    connection = AsyncTcpConnection(
        f"text://127.0.0.1:{listener.getsockname()[1]}", max_send_buffer_bytes=10_000
    )
    errors: list[Any] = []
    connection.on_message = lambda connection, data: connection.send(data)
    connection.on_buffer_full = lambda connection: connection.pause_recv()
    connection.on_buffer_drain = lambda connection: connection.resume_recv()
    connection.on_error = lambda connection, *args: errors.append(args)
    connection.connect()
    peer, _ = listener.accept()
    lines = [f"{number} ".encode().ljust(999, b"z") for number in range(20_000)]
    speaking = gevent.spawn(peer.sendall, b"\n".join([*lines, b""]))
    gevent.sleep(0.1)
    received = bytearray()
    with gevent.Timeout(20 * SLOWNESS):
        while len(received) < 20_000_000:
            received += peer.recv(1 << 20)
        speaking.get()
    assert received.splitlines() == lines
    assert errors == []
    connection.destroy()


@pytest.mark.parametrize("size", [30, 49_999])
@pytest.mark.parametrize("is_connected", [True, False])
def test_a_pipe_forwards_all_at_the_pace_of_its_end(
    listener: Any, size: int, is_connected: bool
) -> None:
    """A gateway: what one peer says goes to the other, however slowly that reads."""
    limit = 10_000
    url = f"text://127.0.0.1:{listener.getsockname()[1]}"
    source = AsyncTcpConnection(url)
    source.connect()
    speaker, _ = listener.accept()
    target = AsyncTcpConnection(url, max_send_buffer_bytes=limit)
    errors = []
    target.on_error = lambda _connection, *args: errors.append(args)
    if is_connected:
        target.connect()
    source.pipe(target)
    lines = [f"{number} ".encode().ljust(size, b"y") for number in range(20_000_000 // size // 10)]
    speaking = gevent.spawn(speaker.sendall, b"\n".join([*lines, b""]))
    gevent.sleep(0.2)
    assert target._buffered + target._before_bytes < limit + size + 2
    if not is_connected:
        target.connect()
    reader, _ = listener.accept()
    received = bytearray()
    with gevent.Timeout(20 * SLOWNESS):
        speaking.get()
        speaker.close()
        while data := reader.recv(1 << 16):
            received += data
    assert received.splitlines() == lines
    assert errors == []


def test_unix_sockets_and_ipv6(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    listener = gevent.socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(5)
    six = gevent.socket.socket(socket.AF_INET6)
    six.bind(("::1", 0))
    six.listen(5)
    urls = [f"text+unix://{path}", f"text://[::1]:{six.getsockname()[1]}"]
    for url, listening in zip(urls, (listener, six), strict=True):
        connection = AsyncTcpConnection(url)
        events = recorded(connection)
        connection.send("hi")
        connection.connect()
        peer, _ = listening.accept()
        assert peer.recv(10) == b"hi\n"
        assert connection.remote_address == url.partition("://")[2]
        peer.close()
        until(lambda: ("on_close",) in events)  # noqa: B023
        listening.close()


@pytest.mark.parametrize("url", ["http://x:1", "x:1", "websocket://127.0.0.1:1", "text://x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        AsyncTcpConnection(url)


def test_callbacks_come_after_connect_has_returned(echo: str) -> None:
    told: list[str] = []
    for url in (echo, "text://127.0.0.1:1"):
        connection = AsyncTcpConnection(url)
        connection.connect()
        assert connection.send("kept for the connection") is True
        connection.on_connect = lambda _: told.append("connect")
        connection.on_error = lambda *_: told.append("error")
        connection.on_close = lambda _: told.append("close")
        assert told == []
        gevent.sleep(0.05)
        connection.destroy()
        gevent.sleep(0.01)
        assert told == (["connect", "close"] if url == echo else ["error", "close"])
        told.clear()


def test_reconnecting_again_and_again_to_a_port_that_refuses_lets_others_run() -> None:
    connection = AsyncTcpConnection("text://127.0.0.1:1")
    ends: list[float] = []

    def on_close(connection: AsyncTcpConnection) -> None:
        ends.append(time.monotonic())
        if len(ends) < 100_000:
            connection.reconnect()

    connection.on_close = on_close
    connection.connect()
    started = time.monotonic()
    gevent.sleep(0.05)
    assert time.monotonic() - started < 1
    connection.on_close = None
    connection.destroy()
    assert len(ends) > 1


def test_the_context_cannot_be_deleted() -> None:
    connection = AsyncTcpConnection("text://127.0.0.1:1")
    connection.context.name = "kept"
    with pytest.raises(AttributeError):
        del connection.context
    assert connection.context.name == "kept"
