"""Answers are framed by the rules of RFC 9112 section 6.3, whatever the application says."""

from __future__ import annotations

import pytest

from gtask.protocols.http import Request
from gtask.server.web.response import SWITCHING, Response


class Sent:
    """A response, and what it has sent."""

    def __init__(self, method="GET", version="1.1", keeps_alive=True, is_last=False) -> None:
        request = Request(method, "/", version, [], keeps_alive)
        self.parts: list[bytes] = []
        self.response = Response(request, self.parts.append, lambda: is_last)

    def answer(self, status="200 OK", headers=(), result=()):
        """The status, the headers without Date, and the body."""
        self.response.start(status, list(headers))
        self.response.write_all(result)
        return self.told()

    def told(self):
        head, _, body = b"".join(self.parts).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        assert len(headers) == len(lines)
        assert status.startswith("HTTP/1.1 ")
        if not status.startswith("HTTP/1.1 101"):
            assert headers.pop("Date").endswith(" GMT")
        return status[9:], headers, body


def pieces(*parts):
    """A body whose length nobody can tell."""
    yield from parts


LENGTH = [("Content-Length", "5")]


@pytest.mark.parametrize(
    ("request_", "headers", "result", "told", "body"),
    [
        # a length that is told, known, or not known
        ({}, LENGTH, [b"he", b"llo"], {"Content-Length": "5"}, b"hello"),
        ({}, [], [b"he", b"", b"llo"], {"Content-Length": "5"}, b"hello"),
        ({}, [], [], {"Content-Length": "0"}, b""),
        ({}, [], pieces(b"he", b"", b"llo"), {"Transfer-Encoding": "chunked"},
            b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        ({}, [], pieces(), {"Transfer-Encoding": "chunked"}, b"0\r\n\r\n"),
        ({}, LENGTH, pieces(b"hello"), {"Content-Length": "5"}, b"hello"),
        # HTTP/1.0: by the end, unless the length is known
        ({"version": "1.0"}, [], pieces(b"hello"), {"Connection": "close"}, b"hello"),
        ({"version": "1.0"}, [], [b"hello"],
            {"Content-Length": "5", "Connection": "keep-alive"}, b"hello"),
        ({"version": "1.0", "keeps_alive": False}, [], [b"hello"],
            {"Content-Length": "5", "Connection": "close"}, b"hello"),
        # no body
        ({"method": "HEAD"}, LENGTH, [b"hello"], {"Content-Length": "5"}, b""),
        ({"method": "HEAD"}, LENGTH, [], {"Content-Length": "5"}, b""),
        ({"method": "HEAD"}, [], [b"hello"], {"Content-Length": "5"}, b""),
        ({"method": "HEAD"}, [], [], {}, b""),
        ({"method": "HEAD"}, [], pieces(b"hello"), {}, b""),
        # who closes
        ({"is_last": True}, LENGTH, [b"hello"],
            {"Content-Length": "5", "Connection": "close"}, b"hello"),
        ({"keeps_alive": False}, [], pieces(b"a"),
            {"Connection": "close", "Transfer-Encoding": "chunked"}, b"1\r\na\r\n0\r\n\r\n"),
        ({}, [("Connection", "Close"), *LENGTH], [b"hello"],
            {"Content-Length": "5", "Connection": "close"}, b"hello"),
        # what is ours to say
        ({}, [("Transfer-Encoding", "chunked"), ("Keep-Alive", "9")], [b"hello"],
            {"Content-Length": "5"}, b"hello"),
        ({}, [("Connection", "keep-alive"), ("Upgrade", "websocket")], [],
            {"Upgrade": "websocket", "Connection": "Upgrade", "Content-Length": "0"}, b""),
    ],
)  # fmt: skip
def test_how_the_end_is_told(request_, headers, result, told, body):
    sent = Sent(**request_)
    assert sent.answer("200 OK", headers, result) == ("200 OK", told, body)
    assert sent.response.closes is (told.get("Connection") == "close")
    assert sent.response.fault == ""


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        ("204 No Content", [], {}),
        ("204 No Content", LENGTH, {}),
        ("304 Not Modified", [], {}),
        ("304 Not Modified", LENGTH, {"Content-Length": "5"}),
    ],
)
@pytest.mark.parametrize("result", [[], [b"hello"], None])
def test_what_has_no_body_by_its_status(status, headers, told, result):
    sent = Sent()
    assert sent.answer(status, headers, pieces(b"x") if result is None else result)[1:] == (
        told,
        b"",
    )
    assert not sent.response.closes


@pytest.mark.parametrize(
    ("result", "body", "how"),
    [
        ([b"hello, you"], b"hello", "more"),
        ([b"hello", b"x"], b"hello", "more"),
        ([b"hell"], b"hell", "less"),
        ([], b"", "less"),
    ],
)
def test_an_application_is_held_to_its_length(result, body, how):
    sent = Sent()
    assert sent.answer("200 OK", LENGTH, result)[2] == body
    assert sent.response.closes
    assert how in sent.response.fault


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("OK", []),
        ("2OO", []),
        ("100 Continue", []),
        (SWITCHING, []),
        ("200 \u1234", []),
        (b"200 OK", []),
        ("200 OK", [("X", "a\r\nSet-Cookie: b")]),
        ("200 OK", [("X", "a\nb")]),
        ("200 OK", [("X", "a\x00b")]),
        ("200 OK", [("X: y\r\nZ", "a")]),
        ("200 OK", [("", "a")]),
        ("200 OK", [("X y", "a")]),
        ("200 OK", [("X", "\u1234")]),
        ("200 OK", [("X", b"a")]),
        ("200 OK", [("X", 5)]),
        ("200 OK", [("Content-Length", "-1")]),
        ("200 OK", [("Content-Length", "+1")]),
        ("200 OK", [("Content-Length", "1_0")]),
        ("200 OK", [("Content-Length", "five")]),
        ("200 OK", [("Content-Length", "")]),
        ("200 OK", [("Content-Length", "5"), ("content-length", "6")]),
    ],
)
def test_what_cannot_be_sent_so(status, headers):
    sent = Sent()
    with pytest.raises((ValueError, TypeError)):
        sent.response.start(status, headers)
    assert sent.answer("200 OK", [], [b"x"])[2] == b"x"


def test_starting_twice():
    sent = Sent()
    sent.response.start("200 OK", LENGTH)
    with pytest.raises(AssertionError):
        sent.response.start("200 OK", [])
    error = ValueError("on purpose")
    sent.response.start("500 Oops", [], (ValueError, error, None))
    assert sent.response.status == "500 Oops"
    sent.response.write(b"x")
    with pytest.raises(ValueError, match="on purpose"):
        sent.response.start("500 Oops", [], (ValueError, error, None))


def test_not_starting():
    with pytest.raises(AssertionError, match="start_response"):
        Sent().response.write_all([b"x"])
    with pytest.raises(AssertionError, match="start_response"):
        Sent().response.write_all([])


def test_a_body_is_of_bytes():
    sent = Sent()
    write = sent.response.start("200 OK", [])
    with pytest.raises(TypeError):
        write("text")
    write(bytearray(b"a"))
    write(memoryview(b"b"))
    sent.response.write_all([b"c"])
    assert sent.told()[2] == b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"


def test_the_switch_to_another_protocol():
    sent = Sent()
    sent.response.replace(SWITCHING, [("Upgrade", "websocket"), ("Connection", "Upgrade")])
    sent.response.write_all([])
    headers = {"Upgrade": "websocket", "Connection": "Upgrade"}
    assert sent.told() == (SWITCHING, headers, b"")


def test_a_large_piece_is_not_copied():
    sent, large = Sent(), b"x" * 1_000_000
    sent.response.start("200 OK", [])
    sent.response.write_all([large])
    assert sent.parts[1] is large
