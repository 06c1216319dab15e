"""`TlsSocket`: what pywsgi reads and writes where a service speaks TLS."""

from __future__ import annotations

import io
from typing import Any

from ...net.stream import READ_BYTES
from ...protocols.tls import TlsFilter


class TlsSocket(io.RawIOBase):
    """The blocking face of a TLS connection, for as long as HTTP is spoken on it.

    After an upgrade the connection takes over `tls`, and `plain` first.

    Attributes:
        tls: encrypts and decrypts.
        plain: what is decrypted and has not been read yet.
    """

    def __init__(self, sock: Any, tls: TlsFilter) -> None:
        self._inner = sock
        self.tls = tls
        self.plain = bytearray()
        self.family, self.type = sock.family, sock.type
        self.settimeout, self.detach = sock.settimeout, sock.detach

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while not self.plain:
            try:
                data = self._inner.recv(READ_BYTES)
            except BlockingIOError:
                return None
            if not data:
                return 0
            try:
                self.plain += self.tls.receive(data)
            finally:  # also the alert that says why not
                if output := self.tls.take_output():
                    self._inner.sendall(output)
        count = min(len(buffer), len(self.plain))
        buffer[:count] = self.plain[:count]
        del self.plain[:count]
        return count

    def sendall(self, data: bytes | bytearray) -> None:
        self.tls.send(data)
        self._inner.sendall(self.tls.take_output())

    @property
    def bare(self) -> Any:
        """gevent's socket below."""
        return self._inner

    def close(self) -> None:
        self._inner.close()
        super().close()
