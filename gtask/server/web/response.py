"""`Response`: what an application answers, framed so that no client can mistake its end.

RFC 9112 section 6.3: by its Content-Length, in chunks, or by the end of the connection; the answers
to HEAD, and those of status 204 and 304, have no body. What the application gives is held to that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from email.utils import formatdate
from types import TracebackType
from typing import Any

from ...protocols.http import Request

Headers = list[tuple[str, str]]
ErrorInfo = tuple[type[BaseException], BaseException, TracebackType]

JOIN_BYTES = 65536  # up to here a copy costs less than another packet
STATUS = re.compile(r"[2-5][0-9][0-9]( [^\x00-\x1f\x7f]*)?")
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
FRAMING = {"connection", "keep-alive", "transfer-encoding"}  # ours to say
NO_BODY = {204, 304}
UNSIZED = {"101", "204", "304"}  # a length of 0 would be a lie, or has no meaning
SWITCHING = "101 Switching Protocols"


class Response:
    """The answer to one request.

    Args:
        send: sends bytes, waiting.
        is_last: whether the connection ends behind this answer for other reasons than its own;
            asked when its head is sent.

    Attributes:
        status: as the application said it; empty before.
        is_begun: the head has been sent.
        closes: the connection has to end behind it.
        fault: how the application broke its own word, if it did.
    """

    def __init__(
        self, request: Request, send: Callable[[bytes], None], is_last: Callable[[], bool]
    ) -> None:
        self._request = request
        self._send = send
        self._is_last = is_last
        self._headers: Headers = []
        self._left: int | None = None  # of the body, if its length was told
        self._is_chunked = False
        self._has_no_body = False
        self.status = ""
        self.is_begun = False
        self.closes = not request.keeps_alive
        self.fault = ""

    # -- for the application ------------------------------------------------------------------

    def start(
        self, status: str, headers: Headers, exc_info: ErrorInfo | None = None
    ) -> Callable[[bytes], None]:
        """WSGI's `start_response`.

        Raises:
            AssertionError: it was called before, and `exc_info` is not given.
            ValueError: what cannot be sent so; the answer is that of before.
            TypeError: no str where one is needed.
        """
        if exc_info is not None:
            try:
                if self.is_begun:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle with the traceback
        elif self.status:
            raise AssertionError("start_response was called twice")
        headers = list(headers)
        _check(status, headers)
        self.replace(status, headers)
        return self.write

    def replace(self, status: str, headers: Headers) -> None:
        """Answer this; nothing has been sent yet."""
        lengths = {value for name, value in headers if name.lower() == "content-length"}
        self._left = int(lengths.pop()) if lengths else None
        self.closes = self.closes or "close" in _tokens(headers, "connection")
        self.status, self._headers = status, headers

    def write(self, data: bytes) -> None:
        """Send a part of the body; what is beyond the Content-Length, or no body's, is dropped."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(f"an application's body is of bytes, not {type(data).__name__}")
        if data:
            self._write(bytes(data))

    def write_all(self, result: Iterable[bytes]) -> None:
        """Send the whole body."""
        if not self.is_begun and self._left is None and isinstance(result, list | tuple):
            self._tell_length(sum(map(len, result)))
        for data in result:
            self.write(data)
        self._finish()

    def _tell_length(self, length: int) -> None:
        if self.status[:3] not in UNSIZED and (length or self._request.method != "HEAD"):
            self._left = length
            self._headers.append(("Content-Length", str(length)))

    # -- the head -----------------------------------------------------------------------------

    def _begin(self) -> bytes:
        if not self.status:
            raise AssertionError("the application did not call start_response")
        self._frame()
        self.is_begun = True
        self.closes = self.closes or self._is_last()
        lines = [f"HTTP/1.1 {self.status}"]
        lines += [f"{name}: {value}" for name, value in self._told_headers()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def _frame(self) -> None:
        code = int(self.status[:3])
        self._has_no_body = self._request.method == "HEAD" or code in NO_BODY
        if self._has_no_body or self._left is not None or self.status == SWITCHING:
            return
        if self._request.version == "1.1":
            self._is_chunked = True
        else:
            self.closes = True

    def _told_headers(self) -> Headers:
        names = {name.lower() for name, _ in self._headers}
        dropped = FRAMING | {"content-length"} if self.status[:3] == "204" else FRAMING
        told = [(name, value) for name, value in self._headers if name.lower() not in dropped]
        options = ["Upgrade"] if "upgrade" in names else []
        if self.status != SWITCHING:
            if self.closes:
                options.append("close")
            elif self._request.version == "1.0":
                options.append("keep-alive")
        if options:
            told.append(("Connection", ", ".join(options)))
        if self._is_chunked:
            told.append(("Transfer-Encoding", "chunked"))
        if "date" not in names and self.status != SWITCHING:
            told.append(("Date", formatdate(usegmt=True)))
        return told

    # -- the body -----------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        head = b"" if self.is_begun else self._begin()
        data = self._cut(data)
        if self._is_chunked and data:
            size = b"%x\r\n" % len(data)
            self._send_joined(head + size, data, b"\r\n")
        elif head or data:
            self._send_joined(head, data)

    def _cut(self, data: bytes) -> bytes:
        if self._has_no_body:
            return b""
        if self._left is not None:
            if len(data) > self._left:
                data = data[: self._left]
                self._break_word("more than its Content-Length")
            self._left -= len(data)
        return data

    def _finish(self) -> None:
        if not self.is_begun:
            self._send(self._begin())
        if self._is_chunked:
            self._send(b"0\r\n\r\n")
        elif self._left and not self._has_no_body:
            self._break_word("less than its Content-Length")

    def _break_word(self, how: str) -> None:
        self.fault = self.fault or f"the application sent {how}"
        self.closes = True

    def _send_joined(self, *parts: bytes) -> None:
        if sum(map(len, parts)) <= JOIN_BYTES:
            parts = (b"".join(parts),)
        for part in parts:
            if part:
                self._send(part)


def _check(status: Any, headers: list[Any]) -> None:
    """Refuse what would not be one answer with these headers.

    Raises:
        ValueError, TypeError: why.
    """
    if not isinstance(status, str) or any(
        not isinstance(one, str) for header in headers for one in header
    ):
        raise TypeError("status and headers are of str")
    status.encode("latin-1")
    if not STATUS.fullmatch(status):
        raise ValueError(f"no status of an answer: {status!r}")
    for name, value in headers:
        if not NAME.fullmatch(name) or not VALUE.fullmatch(value):
            raise ValueError(f"no header: {name!r}: {value!r}")
        value.encode("latin-1")
    _check_length([value for name, value in headers if name.lower() == "content-length"])


def _check_length(lengths: list[str]) -> None:
    if len(lengths) > 1 or not all(one.isascii() and one.isdigit() for one in lengths):
        raise ValueError(f"no Content-Length: {', '.join(lengths)!r}")


def _tokens(headers: Headers, name: str) -> set[str]:
    values = [value for key, value in headers if key.lower() == name]
    return {token.strip().lower() for value in values for token in value.split(",")}
