"""Messages and close codes on a real socket, with clients that break every rule."""

from __future__ import annotations

import socket
import struct

import gevent
import gevent.event
import pytest

from ....support.websocket import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawClient,
    ServiceThread,
    close_frame,
    frame,
)

MIB = 1 << 20


# -- messages --------------------------------------------------------------------------------------


def test_text_is_str_and_binary_is_bytes(service, client):
    client.send(frame(TEXT, "작업 완료".encode()) + frame(BINARY, b"\xff\x00"))
    assert client.frame() == (TEXT, "작업 완료".encode())
    assert client.frame() == (BINARY, b"\xff\x00")
    assert service.named("on_message") == [("작업 완료",), (b"\xff\x00",)]
    assert [event[0] for event in service.events] == ["on_connect", "on_message", "on_message"]


@pytest.mark.parametrize("length", [0, 125, 126, 65535, 65536, 300_000])
def test_lengths(client, length):
    client.send(frame(BINARY, b"x" * length))
    assert client.frame() == (BINARY, b"x" * length)


def test_a_message_in_the_packet_of_the_handshake(service):
    with RawClient(service.address) as raw:
        raw.upgrade(behind=frame(TEXT, b"early") + frame(TEXT, b"x" * 50_000))
        assert raw.frame() == (TEXT, b"early")
        assert raw.frame() == (TEXT, b"x" * 50_000)


def test_a_ping_between_fragments_is_answered_at_once(client):
    client.send(frame(TEXT, b"one ", fin=False) + frame(PING, b"alive?"))
    assert client.frame() == (PONG, b"alive?")
    client.send(frame(CONTINUATION, b"two"))
    assert client.frame() == (TEXT, b"one two")


def test_pings_are_answered_while_a_callback_blocks(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    with RawClient(service.address) as raw:
        raw.upgrade()
        raw.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        for _ in range(3):
            raw.send(frame(PING, b"?"))
            assert raw.frame() == (PONG, b"?")
        service.call(gate.set)


def test_one_byte_at_a_time(client):
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in frame(TEXT, b"slowly", fin=False) + frame(CONTINUATION, b"x" * 200):
        client.send(bytes((byte,)))
    assert client.frame() == (TEXT, b"slowly" + b"x" * 200)


def test_what_cannot_be_sent(service, client):
    connection = service.connection
    with pytest.raises(TypeError, match="int"):
        service.call(connection.send, 5)
    with pytest.raises(ValueError, match="surrogates"):
        service.call(connection.send, "\ud800")
    assert client.echo("no harm done")


# -- close codes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (frame(TEXT, b"x", masked=False), 1002),
        (frame(TEXT, b"x", rsv=4), 1002),
        (frame(3, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(PING, b"x", fin=False), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(CONTINUATION, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
        (struct.pack("!BBH", 0x82, 0x80 | 126, 5) + bytes(9), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (close_frame(1000, b"\xff"), 1007),
        (close_frame(1005), 1002),
        (close_frame(2999), 1002),
        (close_frame(5000), 1002),
        (frame(CLOSE, b"x"), 1002),
        (struct.pack("!BBQ", 0x82, 0xFF, 8 << 30), 1009),
        (struct.pack("!BBQ", 0x82, 0xFF, 1 << 40), 1009),
    ],
    ids=lambda value: "broken" if isinstance(value, bytes) else None,  # masks are random
)
def test_who_breaks_the_protocol_is_told_why(service, client, broken, code):
    client.send(frame(TEXT, b"before") + broken)
    assert client.frame() == (TEXT, b"before")
    assert client.close_code() == code
    service.wait_for("on_close")


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1011, 1012, 1014, 3000, 4999])
def test_the_clients_code_is_echoed(service, client, code):
    connection = service.connection
    client.send(close_frame(code, "wegen é".encode()))
    assert client.close_code() == code
    service.wait_for("on_close")
    assert connection.peer_close == (code, "wegen é")


def test_a_close_without_code_is_answered_without_code(service, client):
    client.send(close_frame())
    assert client.frame() == (CLOSE, b"")
    assert not client.rest()


def test_messages_before_the_close_are_answered_first(service, client):
    client.send(frame(TEXT, b"1") + frame(TEXT, b"2") + close_frame(1000) + frame(TEXT, b"late"))
    assert client.frame() == (TEXT, b"1")
    assert client.frame() == (TEXT, b"2")
    assert client.close_code() == 1000
    assert service.named("on_message") == [("1",), ("2",)]


def test_close_flushes_first_and_says_1000(service, client):
    service.call(service.connection.close, "x" * 200_000)
    assert client.frame() == (TEXT, b"x" * 200_000)
    assert client.close_code() == 1000
    service.wait_for("on_close")


def test_a_code_and_reason_of_ones_own(service, client):
    service.call(service.connection.close_code, 4000, "bye")
    assert client.frame() == (CLOSE, b"\x0f\xa0bye")
    assert not client.rest()


def test_a_code_that_must_not_be_sent(service, client):
    with pytest.raises(ValueError, match="not a close code"):
        service.call(service.connection.close_code, 1006)
    assert client.echo("still open")


def test_the_last_words_reach_a_peer_that_still_sends(service, client):
    client.send(struct.pack("!BBQ", 0x82, 0xFF, 100 * MIB) + bytes(4))
    for _ in range(20):  # unread input would turn the end into a reset
        client.send(bytes(256 * 1024))
    assert client.close_code() == 1009


def test_the_message_limit():
    with (
        ServiceThread(worker={"max_frame_bytes": 1000}) as service,
        RawClient(service.address) as raw,
    ):
        raw.upgrade()
        assert raw.echo("x" * 1000)
        raw.send(frame(TEXT, b"x" * 600, fin=False) + frame(CONTINUATION, b"x" * 401))
        assert raw.close_code() == 1009
