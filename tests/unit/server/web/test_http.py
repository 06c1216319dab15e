"""HTTP before a websocket and beside it: requests that are none, that do not come, and plain ones."""

from __future__ import annotations

import socket
import time

import pytest

from ....support.wait import wait_until
from ....support.websocket import (
    RawClient,
    ServiceThread,
    application,
    request,
)

# -- what is read ----------------------------------------------------------------------------------


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


@pytest.mark.parametrize("begun", [b"", b"GET ", request()[:-30], request()])
def test_a_peer_that_resets_during_the_handshake(service, caplog, capfd, begun):
    for _ in range(5):
        raw = RawClient(service.address)
        raw.send(begun)
        raw.reset()
    with RawClient(service.address) as raw:
        raw.upgrade()
        assert raw.echo("still served")
    wait_until(lambda: service.stats.connections == 0)
    assert len(service.named("on_connect")) == len(service.named("on_close"))
    assert "Traceback" not in caplog.text + capfd.readouterr().err


# -- what is limited -------------------------------------------------------------------------------


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


# -- what is answered ------------------------------------------------------------------------------


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


def test_a_head_alone_never_ends_the_handling_of_bodies():
    upgrade = b"Connection: upgrade\r\n"
    with ServiceThread(worker={"application": application}) as service:
        for headers in (b"", upgrade, upgrade + b"Upgrade: h2c\r\n"):
            with RawClient(service.address) as raw:
                post = b"POST /form HTTP/1.1\r\nHost: h\r\n%bContent-Length: 3\r\n\r\nabc" % headers
                raw.send(post + post)
                assert raw.read_answer()[2] == raw.read_answer()[2] == b"abc"
