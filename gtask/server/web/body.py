"""`Body`: the body of one request, as an application reads it from ``wsgi.input``."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from ...protocols.http import HttpFault, RequestParser
from .http_socket import HttpSocket
from .limits import BodyWait

TIMED_OUT = "408 Request Timeout"


class BrokenBody(OSError):
    """The client has broken its upload off, or its framing; frameworks know an OSError as that."""


class Body(io.RawIOBase):
    """Ends where the request does, so that nobody reads on into the next one.

    Args:
        say_continue: called when the application begins to read, if the client waits for that.

    Attributes:
        fault: what the client did wrong, once it did.
        is_read: its end has come.
        is_awaited: the client waits to be told that it should send it.
    """

    def __init__(
        self, parser: RequestParser, sock: HttpSocket, say_continue: Callable[[], None] | None
    ) -> None:
        self._parser = parser
        self._socket = sock
        self._say_continue = say_continue
        self._wait = BodyWait()
        self._rest = b""  # of a piece that was more than the reader wanted
        self.fault: HttpFault | None = None
        self.is_read = False

    @property
    def is_awaited(self) -> bool:
        return self._say_continue is not None

    def as_input(self) -> io.BufferedReader:
        """With the methods that PEP 3333 wants."""
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._rest or self._next_piece()
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        self._rest = data[size:]
        return size

    def discard(self, most: int) -> bool:
        """Read and drop what the application left; whether that was all, and not more than `most`."""
        self._say_continue = None
        try:
            while most >= 0 and not self.is_read:
                most -= len(self._next_piece())
        except OSError:
            return False
        return self.is_read

    def _next_piece(self) -> bytes:
        if self.fault is not None:
            raise BrokenBody(self.fault.why)
        if self.is_read:
            return b""
        try:
            piece = self._receive_piece()
        except HttpFault as fault:
            self.fault = fault.with_traceback(None)  # which knows us
            raise BrokenBody(fault.why) from None
        self.is_read = not piece
        return piece

    def _receive_piece(self) -> bytes:
        while (piece := self._parser.next_body()) is None:
            if self._say_continue is not None:
                self._say_continue()
                self._say_continue = None
            self._receive()
        self._wait.received(len(piece))
        return piece

    def _receive(self) -> None:
        try:
            data = self._socket.receive(self._wait.seconds_left)
        except TimeoutError:
            raise HttpFault("the body does not come", TIMED_OUT) from None
        except OSError as error:
            raise HttpFault(f"the connection broke within the body: {error}") from None
        if not data:
            raise HttpFault("the body ended too early")
        self._parser.feed(data)
