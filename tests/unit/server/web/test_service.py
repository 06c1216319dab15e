"""The websocket service as a whole: counts, limits, drains."""

from __future__ import annotations

import time

import gevent
import gevent.event
import pytest

from ....support.wait import wait_until
from ....support.websocket import (
    TEXT,
    RawClient,
    ServiceThread,
    application,
    frame,
    request,
)


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
        raw.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
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
