"""A websocket on a real socket: how it ends, sends, and calls the user."""

from __future__ import annotations

import logging
import time

import gevent
import gevent.event
import pytest

from gtask.net.stream import StreamState

from ....support.wait import wait_until
from ....support.websocket import (
    BINARY,
    PING,
    PONG,
    TEXT,
    RawClient,
    ServiceThread,
    close_frame,
    frame,
)

MIB = 1 << 20


# -- ends ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "begun",
    [b"", frame(TEXT, b"half")[:5], frame(TEXT, b"x", fin=False)],
    ids=["nothing", "half a frame", "half a message"],
)
@pytest.mark.parametrize("end", [lambda raw: raw.socket.close(), RawClient.reset])
def test_a_peer_that_vanishes(service, client, begun, end):
    client.send(begun)
    wait_until(lambda: service.named("on_connect"))
    end(client)
    service.wait_for("on_close")
    wait_until(lambda: service.stats.connections == 0)
    assert service.service.connections == {}
    assert [event[0] for event in service.events] == ["on_connect", "on_close"]


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


# -- sending ---------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("limits", [{"ping_interval": 0.4}, {"send_timeout": 0.4}])
def test_a_peer_that_takes_it_slowly_is_not_dropped(limits):
    """The kernel keeps megabytes, which are no reason to take the peer for gone."""
    with ServiceThread(**limits) as service, RawClient(service.address, rcvbuf=4096) as raw:
        raw.upgrade()
        service.call(service.connection.send, b"x" * 8 * MIB)
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert raw.socket.recv(30_000)
            time.sleep(0.02)
        assert service.connection.state == StreamState.OPEN


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


# -- callbacks -------------------------------------------------------------------------------------


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
    wait_until(lambda: "WebSocketConnection" in caplog.text)


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
