"""`Line`: one connection of lines of JSON, at either end of FILE.sock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import ProtocolError
from ..logs.loggers import get_logger
from ..net.reactor import Reactor
from ..net.stream import OPEN, Stream
from ..protocols.jsontext import loads
from ..protocols.text import TextDecoder

log = get_logger(__name__)

MAX_LINE_BYTES = 64 * 1024 * 1024  # ten tasks with the longest arguments, and more
MAX_UNSENT_BYTES = 256 * 1024 * 1024  # to a peer that does not read


class Line(Stream):
    """Passes on each line that comes in, and sends together what is written in one turn of the loop.

    Args:
        received: gets this connection and the value of a line.
        ended: gets this connection, once, when it has closed.
    """

    __slots__ = ("__weakref__", "_decoder", "_end", "_lines", "_receive", "context")

    def __init__(
        self,
        reactor: Reactor,
        received: Callable[[Line, Any], None],
        ended: Callable[[Line], None],
    ) -> None:
        super().__init__(reactor)
        self._receive = received
        self._end = ended
        self._decoder = TextDecoder(MAX_LINE_BYTES)
        self._lines: list[bytes] = []
        self.context: Any = None

    def open(self, socket: Any) -> None:
        """Speak on a connected socket."""
        self._open(socket)

    def send(self, line: bytes) -> None:
        """Send a line, LF included, with those that follow at once."""
        if not self._lines:
            self._reactor.loop.run_callback(self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Send now what was to be sent soon."""
        lines, self._lines = self._lines, []
        if lines and self.state is OPEN:
            self._write(b"".join(lines))
            if self._buffered > MAX_UNSENT_BYTES:
                self._abort("reads too slowly")

    def read_all(self) -> None:
        """Take up all that the peer has sent so far."""
        while self.state is OPEN and self._readable():
            pass

    def close(self) -> None:
        self._abort("closed here")

    def peer_socket(self) -> Any:
        """The socket, or None if it is closed."""
        return self._socket

    def _received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            try:
                self._receive(self, loads(frame))
            except ProtocolError as error:
                self._abort(f"no JSON: {error.message}")
                return
            except Exception:  # the edge: one line must not end what others have asked for
                log.exception("a line could not be taken up")
                self._abort("failed")
                return
        if self._decoder.failed:
            self._abort("a line that is too long")

    def _ended(self) -> None:
        self._abort("closed by the peer")

    def _closed(self, reason: str) -> None:
        self._lines = []
        self._end(self)
