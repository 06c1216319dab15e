"""Handshakes: what is refused and why, and what is agreed on."""

from __future__ import annotations

import pytest

from ....support.websocket import (
    RawClient,
    ServiceThread,
    request,
)


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
