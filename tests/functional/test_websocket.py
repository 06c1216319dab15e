"""Websockets of real worker processes: shared fairly, allowed, drained with 1001."""

from __future__ import annotations

import signal

import pytest

from ..support.wait import wait_until
from ..support.websocket import TEXT, RawClient, frame

INI = """
[worker:Web]
listen = websocket://127.0.0.1:0
handler = web
"""
WEB = """
import os
import time

def on_connect(connection):
    connection.send(f"hello from {os.getpid()}")

def on_message(connection, data):
    if data == "die":
        os._exit(3)
    if data == "work":
        time.sleep(0.5)
    if data == "fail":
        raise RuntimeError("broken callback")
    connection.send(f"done: {data}")

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the page"]
"""


def hello(raw: RawClient) -> str:
    """Become a websocket; returns the server's first words."""
    raw.upgrade()
    opcode, payload = raw.frame()
    assert opcode == TEXT
    return payload.decode()


def test_page_websocket_and_drain(spawn):
    worker = spawn(INI, web=WEB)
    with (
        RawClient(worker.address("Web")) as page,
        RawClient(worker.address("Web")) as idle,
        RawClient(worker.address("Web")) as busy,
    ):
        page.send(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert page.read_answer()[::2] == (200, b"the page")
        hello(idle)
        hello(busy)
        busy.send(frame(TEXT, b"work"))
        worker.send_signal(signal.SIGTERM)
        assert busy.frame() == (TEXT, b"done: work")
        assert busy.close_code() == 1001
        assert idle.close_code() == 1001
    assert worker.stop() == 0


def test_interrupt_says_1001_too(spawn):
    worker = spawn(INI, web=WEB)
    with RawClient(worker.address("Web")) as raw:
        hello(raw)
        worker.send_signal(signal.SIGINT)
        assert raw.close_code() == 1001
    assert worker.stop() == 0


def test_websockets_are_shared_fairly(spawn):
    worker = spawn(INI + "count = 3\n", web=WEB)

    def shares() -> list[int]:
        clients = [RawClient(worker.address("Web")) for _ in range(30)]
        greetings = [hello(raw) for raw in clients]
        for raw in clients:
            raw.socket.close()
        return sorted(greetings.count(greeting) for greeting in set(greetings))

    # Workers that were started together know of each other after a second.
    wait_until(lambda: min(found := shares()) >= 8 and len(found) == 3, what="fair shares")


def test_a_dead_worker_is_replaced(spawn):
    worker = spawn(INI, web=WEB)
    with RawClient(worker.address("Web")) as raw:
        first = hello(raw)
        raw.send(frame(TEXT, b"die"))
        assert raw.rest() == b""
    with RawClient(worker.address("Web")) as raw:
        assert hello(raw) != first
        raw.send(frame(TEXT, b"again"))
        assert raw.frame() == (TEXT, b"done: again")


def test_a_broken_callback_is_logged_and_ends_its_connection(spawn):
    worker = spawn(INI, web=WEB)
    worker.expects_traceback = True
    with RawClient(worker.address("Web")) as raw:
        hello(raw)
        raw.send(frame(TEXT, b"fail"))
        assert raw.close_code() == 1011
    wait_until(lambda: "broken callback" in worker.text)
    assert "WebSocketConnection" in worker.text


def test_networks_that_may_not_connect(spawn):
    worker = spawn(INI + "allow = 10.0.0.0/8\n", web=WEB)
    with RawClient(worker.address("Web")) as raw, pytest.raises((EOFError, OSError)):
        raw.upgrade()
