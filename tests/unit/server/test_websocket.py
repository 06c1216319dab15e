"""The websocket service on real sockets, with clients that break every rule."""

from __future__ import annotations

import logging
import socket
import ssl
import struct
import subprocess
import time
from pathlib import Path

import gevent
import pytest

from ...support.wait import wait_until
from ...support.websocket import (
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
    request,
)

MIB = 1 << 20


@pytest.fixture
def service():
    with ServiceThread() as running:
        yield running


@pytest.fixture
def client(service):
    with RawClient(service.address) as raw:
        raw.upgrade()
        yield raw


def reset(raw: RawClient) -> None:
    raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.socket.close()


# -- messages -------------------------------------------------------------------------------------


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


# -- close codes ----------------------------------------------------------------------------------


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


# -- ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [b"", frame(TEXT, b"half")[:5], frame(TEXT, b"x", fin=False)])
@pytest.mark.parametrize("end", [lambda raw: raw.socket.close(), reset])
def test_a_peer_that_vanishes(service, client, begun, end):
    client.send(begun)
    wait_until(lambda: service.named("on_connect"))
    end(client)
    service.wait_for("on_close")
    wait_until(lambda: service.stats.connections == 0)
    assert service.service.connections == {}
    assert [event[0] for event in service.events] == ["on_connect", "on_close"]


@pytest.mark.parametrize("begun", [b"", b"GET ", request()[:-30], request()])
def test_a_peer_that_resets_during_the_handshake(service, caplog, capfd, begun):
    for _ in range(5):
        raw = RawClient(service.address)
        raw.send(begun)
        reset(raw)
    with RawClient(service.address) as raw:
        raw.upgrade()
        assert raw.echo("still served")
    wait_until(lambda: service.stats.connections == 0)
    assert len(service.named("on_connect")) == len(service.named("on_close"))
    assert "Traceback" not in caplog.text + capfd.readouterr().err


def test_destroy_is_at_once(service, client):
    service.call(service.connection.destroy)
    assert client.rest() == b""
    service.wait_for("on_close")


def test_exactly_one_on_close_whatever_is_called(service, client):
    connection = service.connection

    def ends() -> None:
        connection.close("bye")
        connection.close_code(4000)
        connection.close()
        connection.destroy()
        assert connection.send("late") is False

    service.call(ends)
    client.rest()
    service.wait_for("on_close")
    service.call(gevent.sleep, 0.05)
    assert len(service.named("on_close")) == 1


def test_idle_peers_are_pinged_and_dead_ones_dropped():
    with (
        ServiceThread(ping_interval=0.2) as service,
        RawClient(service.address) as alive,
        RawClient(service.address) as dead,
    ):
        alive.upgrade()
        dead.upgrade()
        for _ in range(4):
            assert alive.frame() == (PING, b"")
            alive.send(frame(PONG))
        assert dead.frame() == (PING, b"")
        assert dead.rest() == b""
        assert alive.echo("still here") or alive.frame() == (TEXT, b"still here")
        assert len(service.named("on_close")) == 1


def test_a_connection_that_does_not_listen_is_not_taken_for_dead():
    with ServiceThread(ping_interval=0.1) as service, RawClient(service.address) as raw:
        raw.upgrade()
        connection = service.connection
        service.call(connection.pause_recv)
        raw.send(frame(TEXT, b"later"))
        time.sleep(0.5)
        assert service.named("on_message") == []
        service.call(connection.resume_recv)
        service.wait_for("on_message")
        assert service.named("on_close") == []


# -- sending --------------------------------------------------------------------------------------


def test_several_greenlets_send_to_a_slow_reader():
    with (
        ServiceThread(worker={"max_send_buffer_bytes": 64 * MIB}) as service,
        RawClient(service.address, rcvbuf=4096) as raw,
    ):
        raw.upgrade()
        connection = service.connection

        def send(letter: str) -> None:
            for _ in range(10):
                assert connection.send(letter * 200_000)
                gevent.sleep(0)

        def send_all() -> None:
            gevent.joinall([gevent.spawn(send, letter) for letter in "abc"], raise_error=True)

        service.call(send_all)
        got = [raw.frame() for _ in range(30)]
        assert sorted(payload[:1] for _, payload in got) == [b"a"] * 10 + [b"b"] * 10 + [b"c"] * 10
        assert all(payload == payload[:1] * 200_000 for _, payload in got)


def test_a_full_buffer_refuses_and_tells():
    with (
        ServiceThread(worker={"max_send_buffer_bytes": MIB}) as service,
        RawClient(service.address, rcvbuf=4096) as slow,
        RawClient(service.address) as other,
    ):
        slow.upgrade()
        connection = service.connection
        other.upgrade()

        def fill() -> int:
            sent = 0
            while connection.send(b"x" * 100_000):
                sent += 1
            return sent

        sent = service.call(fill)
        assert service.named("on_buffer_full") == [()]
        assert service.named("on_error") == [(2, "send buffer full, message dropped")]
        assert connection._buffered < MIB + 100_010
        assert other.echo("nobody waits for the slow one")
        assert [slow.frame() for _ in range(sent)] == [(BINARY, b"x" * 100_000)] * sent
        service.wait_for("on_buffer_drain")
        assert slow.echo("and on")


def test_a_peer_that_takes_nothing_is_dropped():
    with (
        ServiceThread(send_timeout=0.3) as service,
        RawClient(service.address, rcvbuf=4096) as stuck,
        RawClient(service.address, rcvbuf=4096) as closing,
    ):
        stuck.upgrade()
        one = service.connection
        closing.upgrade()
        wait_until(lambda: len(service.service.connections) == 2)
        two = max(service.service.connections.values(), key=lambda connection: connection.id)
        service.call(one.send, b"x" * 20 * MIB)
        service.call(two.close, b"x" * 20 * MIB)
        service.wait_for("on_close", 2)


def test_pongs_are_not_collected_for_a_peer_that_does_not_read():
    with (
        ServiceThread(worker={"max_send_buffer_bytes": 10_000}, send_timeout=5) as service,
        RawClient(service.address, rcvbuf=4096) as raw,
    ):
        raw.upgrade()
        connection = service.connection
        raw.send_until_stuck(frame(PING, b"x" * 125) * 5000, 60)
        assert connection.bytes_read > 2 * MIB
        assert connection._buffered < 11_000


def test_what_cannot_be_sent(service, client):
    connection = service.connection
    with pytest.raises(TypeError, match="int"):
        service.call(connection.send, 5)
    with pytest.raises(ValueError, match="surrogates"):
        service.call(connection.send, "\ud800")
    assert client.echo("no harm done")


# -- callbacks ------------------------------------------------------------------------------------


def test_an_exception_ends_its_connection_with_1011_and_no_other(service, caplog):
    def fail(connection, data):
        connection.send("answered before")
        raise RuntimeError("broken callback")

    with RawClient(service.address) as other, RawClient(service.address) as raw:
        other.upgrade()
        wait_until(lambda: service.service.connections)
        service.worker.on_message = fail
        raw.upgrade()
        with caplog.at_level(logging.ERROR):
            raw.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
            assert raw.frame() == (TEXT, b"answered before")
            assert raw.close_code() == 1011
        assert other.echo("fine")
        service.wait_for("on_close")
    assert "broken callback" in caplog.text
    assert "WebSocketConnection" in caplog.text
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("error", [gevent.Timeout(1), SystemExit(3), KeyboardInterrupt()])
def test_what_is_no_exception_but_raised_ends_its_connection_too(service, caplog, error):
    def fail(connection, data):
        raise error

    service.worker.on_message = fail
    with RawClient(service.address) as raw:
        raw.upgrade()
        raw.send(frame(TEXT, b"go"))
        assert raw.close_code() == 1011
    service.wait_for("on_close")
    assert "WebSocketConnection" in caplog.text


def test_a_time_limit_in_a_callback_loses_no_message(service):
    def impatient(connection, data):
        with gevent.Timeout(0.05, False):
            gevent.sleep(5)
        connection.send(data)

    service.worker.on_message = impatient
    with RawClient(service.address) as raw:
        raw.upgrade()
        second = frame(TEXT, b"second" * 100)
        raw.send(frame(TEXT, b"first") + second[:50])
        assert raw.frame() == (TEXT, b"first")
        raw.send(second[50:])
        assert raw.frame() == (TEXT, b"second" * 100)


def test_callbacks_of_one_connection_in_order_and_never_two_at_once(service):
    running, log = [], []

    def slow(connection, data):
        running.append(connection)
        assert len(running) == 1
        gevent.sleep(0.001)
        log.append(data)
        running.pop()

    service.worker.on_message = slow
    with RawClient(service.address) as raw:
        raw.upgrade()
        for number in range(50):
            raw.send(frame(TEXT, str(number).encode()))
        wait_until(lambda: len(log) == 50)
        raw.send(close_frame(1000))
        assert raw.close_code() == 1000
    assert log == [str(number) for number in range(50)]


def test_a_blocking_callback_holds_up_no_other_connection(service):
    gate = gevent.event.Event()
    with RawClient(service.address) as other, RawClient(service.address) as raw:
        other.upgrade()
        wait_until(lambda: service.service.connections)
        service.worker.on_message = lambda connection, data: gate.wait()
        raw.upgrade()
        raw.send(frame(TEXT, b"block"))
        assert other.echo("not blocked")
        service.call(gate.set)


def test_a_fast_peer_is_held_back_while_a_callback_blocks(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    with RawClient(service.address) as raw:
        raw.upgrade()
        connection = service.connection
        assert raw.send_until_stuck(frame(BINARY, b"x" * 50_000), 1000)
        assert connection.bytes_read < MIB
        service.call(gate.set)


def test_a_connection_may_replace_its_callbacks(service):
    def log_in(connection, data):
        connection.context.user = data
        connection.on_message = lambda connection, data: connection.send(
            f"{connection.context.user}: {data}"
        )

    service.worker.on_message = log_in
    with RawClient(service.address) as raw:
        raw.upgrade()
        raw.send(frame(TEXT, b"me") + frame(TEXT, b"hello"))
        assert raw.frame() == (TEXT, b"me: hello")


def test_what_a_connection_knows(service):
    with RawClient(service.address) as raw:
        raw.upgrade(cookie="a=b")
        connection = service.connection
        assert connection.request["PATH_INFO"] == "/chat"
        assert connection.request["QUERY_STRING"] == "x=1"
        assert connection.request["HTTP_COOKIE"] == "a=b"
        host, port = raw.socket.getsockname()
        assert connection.remote_address == f"{host}:{port}"
        assert connection.local_address == f"{host}:{service.address[1]}"
        assert raw.echo("12345")
        wait_until(lambda: connection.bytes_written == 7)
        (report,) = service.service.report()
        assert report["peer"] == connection.remote_address
        assert report["bytes_read"] == 11


def test_pipe(service):
    with RawClient(service.address) as one, RawClient(service.address) as two:
        one.upgrade()
        source = service.connection
        two.upgrade()
        wait_until(lambda: len(service.service.connections) == 2)
        target = max(service.service.connections.values(), key=lambda connection: connection.id)
        service.call(source.pipe, target)
        one.send(frame(TEXT, b"through") + frame(BINARY, b"\x00") + close_frame(1000))
        assert two.frame() == (TEXT, b"through")
        assert two.frame() == (BINARY, b"\x00")
        assert two.close_code() == 1000


# -- the handshake --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status", "text"),
    [
        ({"sec_websocket_key": "abc"}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_key": None}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_key": "ü"}, 400, "Sec-WebSocket-Key"),
        ({"sec_websocket_version": None}, 426, "Version 13"),
        ({"sec_websocket_version": "8"}, 426, "Version 13"),
        ({"connection": "keep-alive"}, 400, "Connection: Upgrade"),
        ({"connection": "upgraded"}, 400, "Connection: Upgrade"),
        ({"host": None}, 400, "Host"),
        ({"content_length": "3"}, 400, "body"),
        ({"transfer_encoding": "chunked"}, 400, "body"),
        ({"version": "1.0"}, 400, "HTTP/1.1"),
        ({"method": "POST"}, 405, "GET"),
        ({"origin": "http://evil.test"}, 403, "evil.test"),
        ({"origin": "null"}, 403, "null"),
        ({"origin": "http://example.test.evil.test"}, 403, "evil"),
        ({"upgrade": "h2c"}, 426, "websocket"),
        ({"upgrade": None, "connection": None}, 426, "websocket"),
    ],
)
def test_requests_that_are_refused(service, caplog, capfd, changes, status, text):
    with RawClient(service.address) as raw:
        raw.send(request(**changes))
        got, headers, body = raw.read_answer()
    assert got == status
    assert text in body.decode()
    assert headers["content-type"] == "text/plain"
    if "sec_websocket_version" in changes:
        assert headers["sec-websocket-version"] == "13"
    assert service.events == []
    assert "Traceback" not in caplog.text + capfd.readouterr().err


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/x.y\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon here\r\n\r\n",
        b"GET / HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nA: " + b"b" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nH\xff\xfe: \xff\r\n \r\n\r\n",
    ],
)
def test_what_is_no_http_ends_quietly(service, caplog, capfd, garbage):
    with RawClient(service.address) as raw:
        try:
            raw.send(garbage)
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.rest()
        except OSError:  # reset, as it was closed before the end of that
            answer = b""
        assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 414", b"HTTP/1.1 426")
    wait_until(lambda: service.stats.connections == 0)
    assert "Traceback" not in caplog.text + capfd.readouterr().err
    with RawClient(service.address) as raw:
        raw.upgrade()
        assert raw.echo("still served")


@pytest.mark.parametrize("origin", ["http://example.test", "https://EXAMPLE.test", None])
def test_origins_of_the_own_host_and_clients_without_one(service, origin):
    with RawClient(service.address) as raw:
        raw.upgrade(origin=origin)
        assert raw.echo("welcome")


def test_origins_that_are_listed():
    origins = "https://a.test, http://b.test:8080"
    with ServiceThread(worker={"origins": origins}) as service:
        for origin, status in [
            ("https://a.test", 101),
            ("http://B.test:8080", 101),
            ("http://a.test", 403),
            ("http://b.test", 403),
            ("http://example.test", 403),
        ]:
            with RawClient(service.address) as raw:
                raw.send(request(origin=origin))
                assert raw.read_head()[0] == status


def test_any_origin():
    with ServiceThread(worker={"origins": ("*",)}) as service, RawClient(service.address) as raw:
        raw.upgrade(origin="null")


def test_firefox_sends_two_connection_tokens(service):
    with RawClient(service.address) as raw:
        raw.upgrade(connection="keep-alive, Upgrade", upgrade="WebSocket")
        assert raw.echo("hi")


def test_the_subprotocol_is_the_users_choice(service):
    offers = []

    def choose(offered, request):
        offers.append((offered, request["PATH_INFO"]))
        return "chat.v2" if "chat.v2" in offered else None

    service.worker.choose_subprotocol = choose
    with RawClient(service.address) as raw:
        answer = raw.upgrade(sec_websocket_protocol="chat, chat.v2")
        assert answer["sec-websocket-protocol"] == "chat.v2"
        assert service.connection.subprotocol == "chat.v2"
    with RawClient(service.address) as raw:
        assert "sec-websocket-protocol" not in raw.upgrade(sec_websocket_protocol="chat.v22")
    assert offers == [(["chat", "chat.v2"], "/chat"), (["chat.v22"], "/chat")]


def test_a_chooser_that_fails_is_the_servers_error(service, caplog):
    service.worker.choose_subprotocol = lambda offered, request: "other"
    with RawClient(service.address) as raw:
        raw.send(request(sec_websocket_protocol="chat"))
        assert raw.read_head()[0] == 500
    assert "was not offered" in caplog.text
    assert service.events == []


def test_extensions_are_not_agreed_to(service):
    with RawClient(service.address) as raw:
        answer = raw.upgrade(sec_websocket_extensions="permessage-deflate")
        assert "sec-websocket-extensions" not in answer


@pytest.mark.parametrize("begun", [b"", b"G", request()[:-2]])
def test_a_request_that_does_not_come_is_not_waited_for(begun):
    with ServiceThread(handshake_timeout=0.2) as service, RawClient(service.address) as raw:
        raw.send(begun)
        assert raw.rest() == b""
        wait_until(lambda: service.stats.connections == 0)


def test_a_request_that_drips_is_not_waited_for():
    with ServiceThread(handshake_timeout=0.3) as service, RawClient(service.address) as raw:
        raw.send(b"GET / HTTP/1.1\r\n")

        def is_refused() -> bool:
            try:
                raw.send(b"X: y\r\n")
            except OSError:
                return True
            return False

        wait_until(is_refused, 5)


def test_the_time_limit_ends_with_the_handshake():
    with ServiceThread(handshake_timeout=0.2) as service, RawClient(service.address) as raw:
        raw.upgrade()
        time.sleep(0.4)
        assert raw.echo("still here")


# -- plain HTTP -----------------------------------------------------------------------------------


def application(environ, start_response):
    body = environ["wsgi.input"].read() or environ["PATH_INFO"].encode()
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("broken application")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def test_the_application_gets_what_asks_for_no_websocket():
    with (
        ServiceThread(worker={"application": application}) as service,
        RawClient(service.address) as raw,
    ):
        raw.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
        assert raw.read_answer()[::2] == (200, b"/page")
        raw.send(b"POST /form HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc")
        assert raw.read_answer()[::2] == (200, b"abc")
        raw.upgrade()  # on the kept connection
        assert raw.echo("hi")


def test_an_application_that_fails(caplog):
    with ServiceThread(worker={"application": application}) as service:
        with RawClient(service.address) as raw:
            raw.send(b"GET /fail HTTP/1.1\r\nHost: h\r\n\r\n")
            assert raw.read_answer()[0] == 500
        assert "broken application" in caplog.text
        with RawClient(service.address) as raw:
            raw.upgrade()
            assert raw.echo("hi")


# -- the service ----------------------------------------------------------------------------------


def test_what_the_scoreboard_is_told(service):
    with RawClient(service.address) as raw:
        raw.upgrade()
        connection = service.connection
        assert service.worker.connections == {connection.id: connection}
        assert service.stats.connections == 1
        assert raw.echo("hi")
        wait_until(lambda: service.service.running == 0)
        assert service.stats.done > 0
    with RawClient(service.address) as raw:
        raw.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert raw.rest().startswith(b"HTTP/1.1 426")
    wait_until(lambda: service.stats.connections == 0)
    assert service.worker.connections == {}


def test_connections_beyond_the_limit_wait():
    with ServiceThread(worker={"max_connections": 2}) as service:
        clients = [RawClient(service.address) for _ in range(3)]
        for raw in clients[:2]:
            raw.upgrade()
            assert raw.echo("hi")
        clients[2].send(request())
        clients[2].socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            clients[2].read_head()
        clients[0].socket.close()
        clients[2].socket.settimeout(10)
        assert clients[2].read_head()[0] == 101
        for raw in clients:
            raw.socket.close()


def test_a_drain_lets_callbacks_end_and_says_1001(service):
    def work(connection, data):
        gevent.sleep(0.5)
        connection.send("done")

    service.worker.on_message = work
    with RawClient(service.address) as busy, RawClient(service.address) as idle:
        idle.upgrade()
        busy.upgrade()
        busy.send(frame(TEXT, b"work"))
        service.call(service.drain, 10)
        assert idle.close_code() == 1001
        assert busy.frame() == (TEXT, b"done")
        assert busy.close_code() == 1001
    service.wait_for("on_close", 2)
    service._listener.close()  # the master's; nobody else holds it open
    with pytest.raises(ConnectionRefusedError):
        RawClient(service.address)


def test_a_drain_does_not_wait_for_requests_that_nobody_sends():
    with (
        ServiceThread(worker={"application": application}) as service,
        RawClient(service.address) as kept,
        RawClient(service.address),
    ):
        kept.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
        assert kept.read_answer()[0] == 200
        wait_until(lambda: service.stats.connections == 2)
        begin = time.monotonic()
        service.call(service.drain, 10)
        assert time.monotonic() - begin < 5
        assert service.stats.connections == 0


def test_a_drain_ends_at_its_time_limit(service):
    service.worker.on_message = lambda connection, data: gevent.sleep(60)
    with RawClient(service.address) as raw:
        raw.upgrade()
        raw.send(frame(TEXT, b"work"))
        begin = time.monotonic()
        service.call(service.drain, 0.2)
        assert time.monotonic() - begin < 5
        assert raw.close_code() == 1001


def test_unix_sockets(tmp_path):
    with ServiceThread(path=str(tmp_path / "socket")) as service:
        for _ in range(2):  # these have no addresses of their own
            with RawClient(service.address) as one, RawClient(service.address) as two:
                one.upgrade()
                two.upgrade()
                assert one.echo("1")
                assert two.echo("2")
        service.wait_for("on_close", 4)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed certificate with its key, for localhost."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {file}.key -out {file}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.key").read_text())
    return file


@pytest.fixture(scope="module")
def server_context(certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_tls_handshake_that_does_not_come_is_not_waited_for(server_context, begun):
    options = {"tls": server_context, "handshake_timeout": 0.2}
    with ServiceThread(**options) as service, RawClient(service.address) as raw:
        raw.send(begun)
        assert raw.rest() == b""
        wait_until(lambda: service.stats.connections == 0)


def test_tls(certificate, server_context):
    trust = ssl.create_default_context(cafile=str(certificate))
    with ServiceThread(tls=server_context, worker={"application": application}) as service:
        with RawClient(service.address) as raw:
            raw.socket = trust.wrap_socket(raw.socket, server_hostname="localhost")
            raw.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
            assert raw.read_answer()[::2] == (200, b"/page")
            raw.upgrade(behind=frame(BINARY, b"x" * 40_000))
            assert raw.frame() == (BINARY, b"x" * 40_000)
            assert raw.echo("y" * 300_000)
            assert service.connection.request["wsgi.url_scheme"] == "https"
            raw.send(close_frame(1000))
            assert raw.close_code() == 1000
        with RawClient(service.address) as plain:
            plain.send(request())
            assert b"101" not in plain.rest()
        wait_until(lambda: service.stats.connections == 0)
