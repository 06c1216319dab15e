"""Plain HTTP with an application: what it does, what its clients do, and how long they may take."""

from __future__ import annotations

import gc
import socket
import threading
import time
from wsgiref.validate import validator

import gevent
import pytest

from gtask.server.web import limits

from ....support.wait import wait_until
from ....support.websocket import RawClient, ServiceThread

# -- what the application does ---------------------------------------------------------------------

POST = b"POST %b HTTP/1.1\r\nHost: h\r\n%bContent-Length: %d\r\n\r\n%b"
CHUNKED_POST = b"POST %b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n"


def many(environ, start_response):
    """Does what the path says."""
    path, source = environ["PATH_INFO"], environ["wsgi.input"]
    if path == "/read":
        body = source.read()
    elif path == "/lines":
        body = repr(list(source)).encode()
    elif path == "/swallow":  # as frameworks do that answer every error themselves
        try:
            body = source.read()
        except Exception:
            start_response("500 Oops", [])
            return [b"my fault"]
    elif path == "/part":
        body = source.read(2) + source.readline()
    else:
        body = path.encode()  # without reading
    if path == "/stream":
        start_response("200 OK", [])
        return iter([b"a", b"b"])
    if path == "/long":
        start_response("200 OK", [("Content-Length", "2")])
        return [b"abc"]
    if path == "/late":
        write = start_response("200 OK", [])
        write(b"begun")
        raise RuntimeError("broken later")
    if path == "/large":
        start_response("200 OK", [])
        return [b"x" * 30_000_000]
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def served():
    with ServiceThread(worker={"application": many}) as service:
        yield service


def rest_of(served, request):
    """All answers on one connection, which the server ends."""
    with RawClient(served.address) as raw:
        raw.send(request)
        return raw.rest()


@pytest.mark.parametrize("size", [0, 3, 500_000])
def test_a_body_that_is_not_read_does_not_swallow_the_next_request(served, size):
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/ignored", b"", size, b"x" * size) + NEXT)
        assert raw.read_answer()[2] == b"/ignored"
        assert raw.read_answer()[2] == b"/page"
        raw.send(CHUNKED_POST % b"/ignored" + b"3\r\nabc\r\n0\r\n\r\n" + NEXT)
        assert raw.read_answer()[2] == b"/ignored"
        assert raw.read_answer()[2] == b"/page"


def test_a_long_body_that_is_not_read_ends_the_connection_after_the_answer(served):
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/ignored", b"", 10**9, b"x" * 3_000_000))
        assert raw.read_answer()[2] == b"/ignored"
        assert raw.rest() == b""


def test_a_body_read_in_parts(served):
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/part", b"", 9, b"ab\nc\ndefg") + NEXT)
        assert raw.read_answer()[2] == b"ab\n"
        assert raw.read_answer()[2] == b"/page"
        raw.send(CHUNKED_POST % b"/lines" + b"3\r\na\nb\r\n2\r\nc\n\r\n0\r\n\r\n" + NEXT)
        assert raw.read_answer()[2] == b"[b'a\\n', b'bc\\n']"
        assert raw.read_answer()[2] == b"/page"


@pytest.mark.parametrize("expect", [b"100-continue", b"100-Continue", b"100-CONTINUE"])
def test_who_waits_to_be_told_is_told(served, expect):
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/read", b"Expect: %b\r\n" % expect, 5, b""))
        assert raw.read_head() == (100, {})
        raw.send(b"hello" + NEXT)
        assert raw.read_answer()[2] == b"hello"
        assert raw.read_answer()[2] == b"/page"


def test_who_waits_to_be_told_and_need_not_send_it(served):
    answer = rest_of(served, POST % (b"/ignored", b"Expect: 100-continue\r\n", 5, b""))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer


@pytest.mark.parametrize(
    "request_",
    [b"GET /stream HTTP/1.0\r\n\r\n", b"GET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"],
)
def test_old_clients_find_the_end_of_a_stream(served, request_):
    answer = rest_of(served, request_)
    assert answer.endswith(b"\r\n\r\nab")
    assert b"chunked" not in answer


def test_old_clients_may_go_on(served):
    with RawClient(served.address) as raw:
        for _ in range(2):
            raw.send(b"GET /page HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            status, headers, body = raw.read_answer()
            assert (status, headers["connection"], body) == (200, "keep-alive", b"/page")


def test_the_answer_to_head_has_no_body(served):
    with RawClient(served.address) as raw:
        raw.send(b"HEAD /page HTTP/1.1\r\nHost: h\r\n\r\n" + NEXT)
        assert raw.read_head()[1]["content-length"] == "5"
        assert raw.read_answer()[2] == b"/page"
    answer = rest_of(served, b"HEAD /page HTTP/1.1\r\n\r\n")  # ours, as there is no Host
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_refusals_to_head_have_none_either(service):
    with RawClient(service.address) as raw:  # a service without an application
        raw.send(b"HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        assert raw.read_head()[0] == 426
        assert raw.rest() == b""


def test_an_application_that_says_more_than_its_length(served, caplog):
    assert rest_of(served, b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n" + NEXT).endswith(b"\r\n\r\nab")
    assert "more than its Content-Length" in caplog.text


def test_an_application_that_fails_in_the_middle(served, caplog):
    answer = rest_of(served, b"GET /late HTTP/1.1\r\nHost: h\r\n\r\n" + NEXT)
    assert answer.endswith(b"5\r\nbegun\r\n")  # and no end, so that nobody takes it for all
    assert "broken later" in caplog.text


# -- what a client does to it ----------------------------------------------------------------------

BROKEN = {
    "half a body": POST % (b"%b", b"", 10, b"half"),
    "half a chunk": CHUNKED_POST + b"a\r\nhalf",
    "a bad chunk": CHUNKED_POST + b"2\r\nabc\r\n0\r\n\r\n",
    "a bad size": CHUNKED_POST + b"2\r\nab\r\nx\r\n",
    "no end": CHUNKED_POST + b"2\r\nab\r\n",
}


@pytest.mark.parametrize("path", [b"/read", b"/swallow"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_upload_is_no_error_of_the_application(served, caplog, name, path):
    with RawClient(served.address) as raw:
        raw.send(BROKEN[name].replace(b"%b", path))
        raw.socket.shutdown(socket.SHUT_WR)
        answer = raw.rest()
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1") == 1
    wait_until(lambda: served.stats.connections == 0)
    assert [record.levelname for record in caplog.records if record.levelno > 20] == []


@pytest.mark.parametrize(
    "begun", [POST % (b"/read", b"", 10**8, b"x" * 1000), NEXT[:10], b"GET /large"]
)
def test_a_client_that_resets_is_no_error_of_the_application(served, caplog, capfd, begun):
    for wait in (0, 0.05):
        raw = RawClient(served.address, rcvbuf=4096)
        raw.send(begun if begun[:4] == b"POST" else begun + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        time.sleep(wait)
        raw.reset()
    wait_until(lambda: served.stats.connections == 0)
    assert [record.levelname for record in caplog.records if record.levelno > 20] == []
    assert "Traceback" not in capfd.readouterr().err


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rest", [b"", b"xx"])
def test_a_body_that_stands_still_is_not_waited_for(served, monkeypatch, rest):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.3)
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/read", b"", 1000, b"x"))
        for byte in rest:  # fewer than a body has to give
            time.sleep(0.1)
            raw.send(bytes([byte]))
        assert raw.read_head()[0] == 408
        assert raw.read(1)


def test_a_steady_upload_may_take_its_time(served, monkeypatch):
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.5)
    with RawClient(served.address) as raw:
        raw.send(POST % (b"/read", b"", 1500, b""))
        for _ in range(15):
            time.sleep(0.1)
            raw.send(b"x" * 100)
        assert len(raw.read_answer()[2]) == 1500


def test_a_steady_download_may_take_its_time():
    with (
        ServiceThread(worker={"application": many}, send_timeout=0.8) as service,
        RawClient(service.address, rcvbuf=4096) as raw,
    ):
        raw.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        began, size = time.monotonic(), 0
        while time.monotonic() - began < 4:
            size += len(raw.socket.recv(60_000))
            time.sleep(0.02)
        assert size > 200_000  # it was never cut
        while size < 30_000_000:
            size += len(raw.socket.recv(1_000_000))


def test_who_takes_nothing_is_not_waited_for(caplog):
    with (
        ServiceThread(worker={"application": many}, send_timeout=0.4) as service,
        RawClient(service.address, rcvbuf=4096) as raw,
    ):
        raw.send(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        wait_until(lambda: service.stats.connections == 1)
        wait_until(lambda: service.stats.connections == 0)
        assert [record.levelname for record in caplog.records if record.levelno > 20] == []


def test_an_unlimited_head_is_waited_for():
    limits = {"handshake_timeout": 0, "send_timeout": 0}
    with ServiceThread(**limits) as service, RawClient(service.address) as raw:
        time.sleep(0.2)
        raw.upgrade()
        assert raw.echo("hi")


# -- unix sockets and proxies ----------------------------------------------------------------------


def test_the_environ_is_whole_on_a_unix_socket(tmp_path):
    def tell(environ, start_response):
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        for name in ("SERVER_NAME", "SERVER_PORT", "REMOTE_ADDR", "REMOTE_PORT", "SCRIPT_NAME"):
            write(f"{name}={environ[name]!r} ".encode())
        return []

    checked = validator(tell)
    path = str(tmp_path / "socket")
    with (
        ServiceThread(path=path, worker={"application": checked}) as service,
        RawClient(service.address) as raw,
    ):
        raw.send(b"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
        answer = raw.rest()
    assert b"SERVER_NAME='a.test' SERVER_PORT='80' REMOTE_ADDR=''" in answer.replace(b"\r\n", b"")


def test_a_drain_says_so_in_the_last_answer():
    began = threading.Event()

    def slow(environ, start_response):
        began.set()
        gevent.sleep(0.5)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with ServiceThread(worker={"application": slow}) as service, RawClient(service.address) as raw:
        raw.send(NEXT)
        assert began.wait(10)
        service.call(service.drain, 10)
        status, headers, body = raw.read_answer()
        assert (status, headers["connection"], body) == (200, "close", b"ok")


def test_nothing_of_a_connection_is_left_to_the_collector(served):
    """In a worker it runs seldom, as what was there before its fork is frozen."""
    kinds = {"Handler", "RequestParser", "Response", "Body", "HttpSocket"}

    def left() -> list[object]:
        return [each for each in gc.get_objects() if type(each).__name__ in kinds]

    gc.collect()
    gc.disable()
    try:
        before = len(left())
        for request_ in (
            NEXT,
            POST % (b"/read", b"Expect: 100-continue\r\n", 2, b"ab"),
            b"x\r\n\r\n",
            CHUNKED_POST % b"/read" + b"x",
        ):
            with RawClient(served.address) as raw:
                raw.send(request_)
                raw.socket.shutdown(socket.SHUT_WR)
                assert raw.rest()
        with RawClient(served.address) as raw:
            raw.upgrade()
            assert raw.echo("hi")
        served.wait_for("on_close")
        wait_until(lambda: served.stats.connections == 0)
        served.events.clear()
        wait_until(lambda: len(left()) <= before, what=left())
    finally:
        gc.enable()
