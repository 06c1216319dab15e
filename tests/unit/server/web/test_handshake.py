"""Handshakes: what is refused and why, and what is agreed on."""

from __future__ import annotations

import pytest

from gtask.server.web import handshake

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


# -- the functions alone ---------------------------------------------------------------------------


def environ(**changes: str | None) -> dict[str, str]:
    """The WSGI environment of the handshake of RFC 6455 section 1.3; None removes a key."""
    values = {
        "REQUEST_METHOD": "GET",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "example.test",
        "HTTP_UPGRADE": "websocket",
        "HTTP_CONNECTION": "Upgrade",
        "HTTP_SEC_WEBSOCKET_VERSION": "13",
        "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("upgrade", "asks"),
    [("websocket", True), ("WebSocket", True), ("h2c, websocket", True), ("h2c", False), (None, False)],
)  # fmt: skip
def test_what_asks_for_a_websocket(upgrade, asks):
    assert handshake.asks_for_websocket(environ(HTTP_UPGRADE=upgrade)) is asks


def test_a_handshake_that_is_in_order_has_no_fault():
    assert handshake.find_fault(environ(), ()) is None
    assert handshake.find_fault(environ(CONTENT_LENGTH="0"), ()) is None
    assert handshake.find_fault(environ(HTTP_CONNECTION="keep-alive, upgrade"), ()) is None


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"REQUEST_METHOD": "POST"}, 405),
        ({"SERVER_PROTOCOL": "HTTP/1.0"}, 400),
        ({"HTTP_CONNECTION": None}, 400),
        ({"HTTP_HOST": None}, 400),
        ({"CONTENT_LENGTH": "1"}, 400),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, 400),
        ({"HTTP_SEC_WEBSOCKET_VERSION": "12"}, 426),
        ({"HTTP_SEC_WEBSOCKET_KEY": "short"}, 400),
        ({"HTTP_ORIGIN": "http://evil.test"}, 403),
    ],
)
def test_each_fault_alone(changes, status):
    refusal = handshake.find_fault(environ(**changes), ())
    assert refusal.status.startswith(str(status))
    assert refusal.why


def test_the_first_fault_is_told_and_a_request_comes_before_its_headers():
    changes = {"REQUEST_METHOD": "POST", "HTTP_SEC_WEBSOCKET_KEY": None, "HTTP_ORIGIN": "x"}
    assert handshake.find_fault(environ(**changes), ()).headers == (("Allow", "GET"),)


@pytest.mark.parametrize(
    ("origin", "origins", "is_allowed"),
    [
        (None, (), True),
        (None, ("https://a.test",), True),
        ("https://example.test", (), True),
        ("https://example.test:8443", (), False),
        ("null", (), False),
        ("null", ("*",), True),
        ("https://A.test", ("https://b.test", "https://a.test/"), True),
        ("https://example.test", ("https://a.test",), False),
    ],
)
def test_origins(origin, origins, is_allowed):
    assert handshake.is_origin_allowed(environ(HTTP_ORIGIN=origin), origins) is is_allowed


def test_a_chooser_is_asked_only_when_something_is_offered():
    asked = []
    choose = lambda offered, request: asked.append((offered, request))  # noqa: E731
    assert handshake.choose_subprotocol(choose, environ()) is None
    assert handshake.choose_subprotocol(choose, environ(HTTP_SEC_WEBSOCKET_PROTOCOL=" , ")) is None
    assert asked == []
    offer = environ(HTTP_SEC_WEBSOCKET_PROTOCOL="a, b,")
    assert handshake.choose_subprotocol(choose, offer) is None
    assert asked == [(["a", "b"], offer)]
    assert handshake.choose_subprotocol(None, offer) is None
    assert handshake.choose_subprotocol(lambda offered, request: "b", offer) == "b"


def test_the_answer_is_that_of_the_rfc():
    assert handshake.upgrade_headers(environ(), "chat") == [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        ("Sec-WebSocket-Protocol", "chat"),
    ]
    assert len(handshake.upgrade_headers(environ(), None)) == 3
