"""Requests are cut as RFC 9112 says, and what is a matter of opinion is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.protocols.http import MAX_HEAD_BYTES, HttpFault, Request, RequestParser

from ...support.smuggling import AMBIGUOUS, HEAD, NEXT

CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def cut(stream: bytes, step: int = 16384) -> list[object]:
    """Each request's head, its body and its end; the fault, if there is one."""
    parser = RequestParser()
    for start in range(0, len(stream), step):
        parser.feed(stream[start : start + step])
    found: list[object] = []
    try:
        while (request := parser.next_request()) is not None:
            body, piece = b"", None
            found.append(request)
            while piece := parser.next_body():
                body += piece
            found.append((body, piece == b""))
    except HttpFault as fault:
        found.append(fault.status)
    return found


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_proxies_may_read_otherwise_is_refused(name):
    found = cut(AMBIGUOUS[name])
    assert found[-1] == "400 Bad Request"
    assert all(request.target != "/smuggled" for request in found if isinstance(request, Request))


@pytest.mark.parametrize(
    ("head", "stream", "body"),
    [
        (HEAD, b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD, b"Content-Length: \t5 \r\n\r\nhello", b"hello"),
        (HEAD, b"\r\n", b""),
        (HEAD, b"TRANSFER-encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (CHUNKED, b"2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n", b"hello"),
        (CHUNKED, b'5;name=value;other="a b"\r\nhello\r\n0\r\n\r\n', b"hello"),
        (CHUNKED, b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n", b"hello"),
        (HEAD, b"Connection: upgrade\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD, b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD, b"Connection: upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n"
               b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (HEAD, b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n", b""),
        (HEAD, b"Content-Length: %d\r\n\r\n%b" % (len(NEXT), NEXT), NEXT),
    ],
)  # fmt: skip
@pytest.mark.parametrize("step", [1, 7, 16384])
def test_the_next_request_begins_where_the_body_ends(head, stream, body, step):
    first, told, second, end = cut(head + stream + NEXT, step)
    assert (first.target, told) == ("/first", (body, True))
    assert (second.target, second.headers, end) == ("/smuggled", [("host", "a")], (b"", True))


@given(st.lists(st.integers(1, 60), min_size=1))
def test_any_split_of_the_stream_gives_the_same(sizes):
    stream = CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n" + NEXT + HEAD + b"A: b\r\n\r\n" + NEXT
    parser, whole = RequestParser(), cut(stream)
    found: list[object] = []
    body: bytes | None = None
    position = turn = 0
    while position < len(stream):
        size = sizes[turn % len(sizes)]
        parser.feed(stream[position : position + size])
        position, turn = position + size, turn + 1
        while True:
            if body is None:
                if (request := parser.next_request()) is None:
                    break
                found.append(request)
                body = b""
            elif (piece := parser.next_body()) is None:
                break
            elif piece:
                body += piece
            else:
                found.append((body, True))
                body = None
    assert found == whole


@pytest.mark.parametrize(
    ("version", "headers", "keeps_alive"),
    [
        ("1.1", b"", True),
        ("1.1", b"Connection: keep-alive, Close\r\n", False),
        ("1.0", b"", False),
        ("1.0", b"Connection: Keep-Alive\r\n", True),
    ],
)
def test_whether_another_request_may_follow(version, headers, keeps_alive):
    head = b"GET / HTTP/%b\r\nHost: a\r\n%b\r\n" % (version.encode(), headers)
    assert cut(head)[0].keeps_alive is keeps_alive


def test_what_follows_a_request_for_another_protocol_is_kept():
    parser = RequestParser()
    parser.feed(HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x80")
    parser.feed(b"\x01\x02")
    assert parser.next_request() is not None
    assert parser.rest == b"\x81\x80\x01\x02"


@pytest.mark.parametrize("piece", [b"A: b\r\n", b"A" * 100, b"A: " + b"b" * 5000 + b"\r\n"])
def test_heads_have_an_end(piece):
    parser = RequestParser()
    parser.feed(HEAD)
    for _ in range(MAX_HEAD_BYTES // len(piece) + 1):
        parser.feed(piece)
    with pytest.raises(HttpFault):
        parser.next_request()


@pytest.mark.parametrize("begun", [b"0\r\nA: ", b"5;", b"0\r\n"])
def test_trailers_and_extensions_have_an_end(begun):
    parser = RequestParser()
    parser.feed(CHUNKED + begun)
    assert parser.next_request() is not None
    for _ in range(20):
        parser.feed(b"a" * 5000)
    with pytest.raises(HttpFault):
        parser.next_body()


def test_steady_chunks_have_none():
    parser = RequestParser()
    parser.feed(CHUNKED)
    parser.next_request()
    for _ in range(MAX_HEAD_BYTES // 5):
        parser.feed(b"1;a=b\r\nx\r\n")
        assert parser.next_body() == b"x"


def test_a_long_target_has_a_status_of_its_own():
    assert cut(b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n") == ["414 URI Too Long"]
