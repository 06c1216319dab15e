"""`HttpSocket`: the bytes of one connection for as long as HTTP is spoken on it, plain or by TLS."""

from __future__ import annotations

import _socket
from time import monotonic
from typing import Any

from ...native import unacknowledged_bytes
from ...net.outbox import WRITE_BYTES
from ...net.stream import READ_BYTES
from ...protocols.tls import TlsFilter

LINGER_SECONDS = 2.0
SEND_LOOKS = 4  # so often within `send_timeout` it is looked whether the peer takes something


class PeerGone(OSError):
    """The peer takes nothing more, or has closed."""


class HttpSocket:
    """A socket that the calling greenlet may wait for; after an upgrade it is let go of.

    Args:
        sock: gevent's, with a timeout of None.
        tls: encrypts and decrypts, or None.
        send_timeout: seconds a peer may take nothing of what is sent; 0: any time.
    """

    def __init__(self, sock: Any, tls: TlsFilter | None, send_timeout: float) -> None:
        self._socket = sock
        self._tls = tls
        self._send_timeout = send_timeout

    # -- in -----------------------------------------------------------------------------------

    def receive(self, seconds: float | None = None) -> bytes:
        """What has come, b"" at the end of the stream.

        Raises:
            TimeoutError: nothing came within `seconds`.
            OSError: the connection is broken, or the peer does not speak TLS as it should.
        """
        self._socket.settimeout(seconds)
        while data := self._socket.recv(READ_BYTES):
            if plain := self._decrypt(data):
                return plain
        return b""

    def _decrypt(self, data: bytes) -> bytes:
        tls = self._tls
        if tls is None:
            return data
        try:
            return tls.receive(data)
        finally:  # also the alert that says why not
            self._send_raw(tls.take_output())

    # -- out ----------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        """Send all of it; waits for as long as the peer takes something.

        Raises:
            PeerGone: it does not.
        """
        if self._tls is None:
            self._send_raw(data)
            return
        view = memoryview(data)
        for start in range(0, len(view), WRITE_BYTES):
            self._tls.send(bytes(view[start : start + WRITE_BYTES]))
            self._send_raw(self._tls.take_output())

    def _send_raw(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._send_some(rest) :]
        except OSError as error:
            raise PeerGone(error.errno, error.strerror or str(error)) from error

    def _send_some(self, data: memoryview) -> int:
        """Send what the kernel takes.

        While its buffer is full it takes nothing for a long time from a slow reader: so look at what
        of it the peer has not acknowledged yet.
        """
        look_seconds = self._send_timeout / SEND_LOOKS or None
        self._socket.settimeout(look_seconds)
        before, since = -1, monotonic()
        while True:
            try:
                return self._socket.send(data)  # type: ignore[no-any-return]
            except TimeoutError:
                now, waiting = monotonic(), unacknowledged_bytes(self._socket.fileno())
                if waiting != before:
                    before, since = waiting, now
                elif now - since >= self._send_timeout:
                    raise TimeoutError(f"took nothing for {self._send_timeout:g} s") from None

    # -- the end ------------------------------------------------------------------------------

    def detach(self) -> tuple[Any, TlsFilter | None]:
        """Let go of the bare socket and its TLS."""
        sock = self._socket
        bare = _socket.socket(sock.family, sock.type, 0, fileno=sock.detach())
        bare.setblocking(False)
        return bare, self._tls

    def linger(self) -> None:
        """Read and drop what the peer still sends, for a while.

        Closing a socket with unread input resets it, and the peer would lose the answer that tells
        why, RFC 9112 section 9.6.
        """
        deadline = monotonic() + LINGER_SECONDS
        try:
            self._socket.shutdown(_socket.SHUT_WR)
            while (left := deadline - monotonic()) > 0:
                self._socket.settimeout(left)
                if not self._socket.recv(READ_BYTES):
                    return
        except OSError:
            pass

    def close_in_child(self) -> None:
        """User code has forked this process off: close it without gevent, whose hub is the other's."""
        self._socket._sock.close()

    def close(self) -> None:
        """Close; what has come already and nobody has read is no reason for a reset."""
        try:
            self._socket.settimeout(0)
            self._socket.recv(READ_BYTES)
        except OSError:
            pass
        self._socket.close()
