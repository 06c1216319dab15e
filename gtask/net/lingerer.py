"""`Lingerer`: the last moments of a connection that we have closed and the peer perhaps not yet."""

from __future__ import annotations

import _socket
from typing import Any, Final

from .reactor import Reactor

READ: Final = 1
READ_BYTES: Final = 65536
LINGER_SECONDS: Final = 2.0
LINGER_BYTES: Final = 64 * 1024 * 1024
DONT_WAIT: Final = _socket.MSG_DONTWAIT


class Lingerer:
    """Reads and drops what a peer still sends, until its end of stream or a limit; then closes.

    RFC 9112 section 9.6 describes the need for HTTP; it is the same for any protocol on TCP.
    """

    def __init__(self, reactor: Reactor, socket: Any) -> None:
        self._reactor = reactor
        self._socket = socket
        self._left = LINGER_BYTES
        try:
            socket.shutdown(_socket.SHUT_WR)
        except OSError:
            socket.close()
            return
        self._reader = reactor.loop.io(socket.fileno(), READ)
        self._timer = reactor.loop.timer(LINGER_SECONDS)
        self._reader.start(self._readable)
        self._timer.start(self.end)
        reactor.lingering.add(self)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(READ_BYTES, DONT_WAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._left -= len(data)
        if not data or self._left < 0:
            self.end()

    def end(self) -> None:
        """Close it in any case."""
        self._reactor.lingering.discard(self)
        for watcher in (self._reader, self._timer):
            watcher.stop()
            watcher.close()
        self._socket.close()
