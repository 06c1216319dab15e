"""HTTP/1 requests, delimited as RFC 9112 says: bytes in; heads, pieces of bodies and their ends out.

httptools, which is Node's strict parser, cuts the stream. What it leaves to its user is judged here:
the header Host, codings other than chunked, sizes. Nothing here reads, writes or waits. After a
fault nothing more is taken in: where the next request would begin is then a matter of opinion.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, NamedTuple

import httptools

MAX_TARGET_BYTES = 8192
MAX_HEADERS = 100
MAX_HEAD_BYTES = 65536

BAD_REQUEST = "400 Bad Request"
URI_TOO_LONG = "414 URI Too Long"

HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%-]*(:[0-9]*)?|\[[0-9A-Fa-f:.]+\](:[0-9]*)?")
TARGET = re.compile(rb"/.*|\*|https?://[^/?#@]+(/.*)?", re.IGNORECASE)


class HttpFault(Exception):
    """The peer broke the protocol, and its connection cannot go on.

    Attributes:
        status: of the answer.
        why: its body, and what the log says.
    """

    def __init__(self, why: str, status: str = BAD_REQUEST) -> None:
        super().__init__(why)
        self.why = why
        self.status = status


class Request(NamedTuple):
    """The head of a request.

    Attributes:
        headers: with names in lower case, in the order in which they came.
        keeps_alive: the client would send another one on this connection.
    """

    method: str
    target: str
    version: str
    headers: list[tuple[str, str]]
    keeps_alive: bool


class RequestParser:
    """Cuts what a client sends into requests, which may follow each other without a pause.

    Any split of the stream gives the same requests. `next_request` and `next_body` have to be
    called in turn; both give None where more has to be fed.

    Attributes:
        rest: what came behind a request that asks for another protocol; it is taken for HTTP, too,
            when `next_request` is called again.
    """

    def __init__(self) -> None:
        self.rest = b""
        self._events: deque[Request | bytes | HttpFault] = deque()
        self._begin()

    def _begin(self) -> None:
        self._parser: Any = httptools.HttpRequestParser(self)
        self._is_paused = False  # another protocol was asked for
        self._body_head = b""  # see `_pause`
        self._goes_on = False  # with a body whose head has been told already
        self._fault: HttpFault | None = None
        self._futile_bytes = 0  # fed since something came of it
        self.on_message_begin()

    def close(self) -> None:
        """Let go of the parser and of errors, so that no cycle keeps their memory."""
        self._parser = self._fault = None
        self._events.clear()

    # -- for the connection -------------------------------------------------------------------

    def feed(self, data: bytes) -> None:
        """Take in what the peer has sent, at most about `MAX_HEAD_BYTES` at once."""
        if self._is_paused:
            self.rest += data
        elif self._fault is None:
            before = len(self._events)
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                self._pause(data[pause.args[0] :])
            except httptools.HttpParserError as error:
                if isinstance(error, httptools.HttpParserCallbackError) and self._fault is None:
                    raise  # a defect of ours
                self._fail(self._fault or HttpFault(str(error)))
            else:
                self._limit(len(data), len(self._events) > before)

    def _pause(self, rest: bytes) -> None:
        """Behind the head of a request that asks for another protocol.

        httptools takes all that follows for the other protocol's, even if this request has a body. So
        have another parser cut that, by a head that delimits it and asks for nothing.
        """
        head = self._body_head
        if head:
            self._begin()
            self._goes_on = True
            self.feed(head + rest)
        else:
            self._is_paused = True
            self.rest = rest

    def next_request(self) -> Request | None:
        """The next request's head, or None.

        Raises:
            HttpFault: there can be none.
        """
        if self._is_paused and not self._events:
            data, self.rest = self.rest, b""
            self._begin()
            self.feed(data)
        return self._next()  # type: ignore[return-value]

    def next_body(self) -> bytes | None:
        """The next piece of the request's body, b"" at its end, or None.

        Raises:
            HttpFault: the body is broken.
        """
        return self._next()  # type: ignore[return-value]

    def _next(self) -> Request | bytes | None:
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, HttpFault):
            self._events.append(event)  # there is nothing behind it, ever
            raise HttpFault(event.why, event.status)  # one that is raised knows us: a cycle
        return event

    # -- what is judged -----------------------------------------------------------------------

    def _fail(self, fault: HttpFault) -> None:
        self._fault = fault
        self._events.append(fault)

    def _limit(self, size: int, came_to_something: bool) -> None:
        """Heads, trailers, and what stands around chunks have no other limit in the parser."""
        self._futile_bytes = 0 if came_to_something else self._futile_bytes + size
        if self._futile_bytes >= MAX_HEAD_BYTES:
            self._fail(HttpFault(f"more than {MAX_HEAD_BYTES} bytes of headers"))

    def _refuse(self, why: str, status: str = BAD_REQUEST) -> None:
        """In one of the parser's callbacks, ends `feed_data`."""
        self._fault = HttpFault(why, status)
        raise self._fault

    def _judge(self, method: str, version: str) -> None:
        if version not in ("1.0", "1.1"):
            self._refuse(f"HTTP/{version} is not spoken here")
        if method == "CONNECT":
            self._refuse("this is no proxy")
        if not TARGET.fullmatch(self._target):
            self._refuse("the target is neither a path nor an address")
        self._judge_host(self._values(b"host"), version)
        codings = self._values(b"transfer-encoding")
        if codings and (version == "1.0" or [coding.lower() for coding in codings] != [b"chunked"]):
            self._refuse("Transfer-Encoding can be chunked only, and not in HTTP/1.0")

    def _judge_host(self, hosts: list[bytes], version: str) -> None:
        if not hosts and version == "1.1":
            self._refuse("the header Host is missing")
        if len(hosts) > 1:
            self._refuse("more than one header Host")
        if hosts and not HOST.fullmatch(hosts[0]):
            self._refuse("the header Host is no host")

    def _values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self._headers if key == name]

    # -- called by httptools ------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._is_in_head = True

    def on_url(self, part: bytes) -> None:
        self._target += part
        if len(self._target) > MAX_TARGET_BYTES:
            self._refuse(f"a target longer than {MAX_TARGET_BYTES} bytes", URI_TOO_LONG)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._is_in_head:
            return  # a trailer, which nobody asked for
        self._headers.append((name.lower(), value.strip(b" \t")))
        if len(self._headers) > MAX_HEADERS:
            self._refuse(f"more than {MAX_HEADERS} headers")

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        if self._goes_on:
            self._goes_on = False
            return
        parser = self._parser
        method, version = parser.get_method().decode(), parser.get_http_version()
        self._judge(method, version)
        headers = [(name.decode(), value.decode("latin-1")) for name, value in self._headers]
        target = self._target.decode("latin-1")
        self._events.append(Request(method, target, version, headers, parser.should_keep_alive()))
        if parser.should_upgrade():
            self._body_head = self._head_for_body()

    def _head_for_body(self) -> bytes:
        (length,) = self._values(b"content-length") or (b"0",)
        if self._values(b"transfer-encoding"):
            return b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        if int(length):
            return b"POST / HTTP/1.1\r\nContent-Length: %b\r\n\r\n" % length
        return b""

    def on_body(self, part: bytes) -> None:
        self._events.append(part)

    def on_message_complete(self) -> None:
        if not self._body_head:
            self._events.append(b"")
