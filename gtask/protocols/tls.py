"""TLS as a filter of bytes, between a socket and whatever reads its plain text.

Sans-IO on `ssl.SSLObject` and memory BIOs: the same stream code serves plain and TLS sockets.
"""

from __future__ import annotations

import ssl


class TlsFilter:
    """One side of one TLS connection.

    After each call the caller sends `take_output()`; before the handshake is done, what is to be
    sent waits inside.

    Args:
        context: certificates and checks.
        server_side: which side of the handshake this is.
        server_hostname: the name to check the peer's certificate against (clients).

    Attributes:
        is_established: the handshake is done.
        is_mid_record: what came last was the beginning of something: a handshake, a record.
    """

    def __init__(
        self, context: ssl.SSLContext, *, server_side: bool, server_hostname: str | None = None
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._waiting = bytearray()
        self.is_established = False
        self.is_mid_record = False

    @property
    def waiting_bytes(self) -> int:
        """What waits for the handshake to be done."""
        return len(self._waiting)

    def receive(self, data: bytes) -> bytes:
        """Take what came from the socket; returns the plain text it holds, perhaps none.

        Raises:
            ssl.SSLError: the peer is no TLS peer, or its certificate is refused.
        """
        self._incoming.write(data)
        was_established = self.is_established
        if not was_established and not self._shake_hands():
            self.is_mid_record = True
            return b""
        plain = []
        wants_more = False
        try:
            while chunk := self._tls.read(65536):
                plain.append(chunk)
        except ssl.SSLWantReadError:
            wants_more = True
        except ssl.SSLZeroReturnError:
            pass  # close_notify: the end of stream follows on the socket
        self.is_mid_record = was_established and wants_more and not plain
        return b"".join(plain)

    def send(self, data: bytes | bytearray) -> None:
        """Encrypt `data` into the output, or keep it until the handshake is done."""
        if self.is_established:
            self._tls.write(data)
        else:
            self._waiting += data

    def take_output(self) -> bytes:
        """The bytes to put on the socket now."""
        return self._outgoing.read()

    def start(self) -> None:
        """Begin the handshake (clients speak first)."""
        self._shake_hands()

    def close(self) -> None:
        """Say close_notify, so that the peer can tell the end from a cut."""
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # the peer's half of the goodbye is not waited for

    def _shake_hands(self) -> bool:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        self.is_established = True
        if self._waiting:
            self._tls.write(self._waiting)
            self._waiting.clear()
        return True
