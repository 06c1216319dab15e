"""The PROXY protocol, versions 1 and 2: what a proxy says first on a connection that it passes on.

As of HAProxy's doc/proxy-protocol.txt. The reader takes no byte that stands behind the header: it is
the client's, and may be the beginning of a TLS handshake.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from ..errors import INVALID_REQUEST, ProtocolError

WORD = b"PROXY "
MAX_LINE_BYTES = 107
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
FIXED_BYTES = 16
LOCAL, PROXY = 0x20, 0x21  # version 2, and who has opened the connection: the proxy, a client
TCP4, TCP6 = 0x11, 0x21
ADDRESS_BYTES = {TCP4: 12, TCP6: 36, 0x31: 216, 0x00: 0}  # 0x31: unix; 0x00: not told

LINE = re.compile(
    rb"PROXY (?:UNKNOWN(?: [^\r\n]*)?|(TCP4|TCP6) (\S+) (\S+) ([0-9]{1,5}) ([0-9]{1,5}))\r\n"
)

Source = tuple[str, int]


class ProxyError(ProtocolError):
    """The connection does not begin with a PROXY header."""

    fatal = True

    def __init__(self, message: str) -> None:
        super().__init__(INVALID_REQUEST, message)


class ProxyHeader:
    """Reads one header.

    Attributes:
        is_complete: it is there.
        source: the client's address and port; None where the proxy speaks for itself, e.g. checks
            our health, or knows no address.
    """

    def __init__(self) -> None:
        self._buffer = b""
        self.is_complete = False
        self.source: Source | None = None

    def feed(self, data: bytes) -> int:
        """Take the header's part from the beginning of `data`; returns its size.

        Raises:
            ProxyError: this is no such header.
        """
        before = len(self._buffer)
        buffer = self._buffer + data
        size = _size(buffer)
        self._buffer = buffer[:size]
        if size is not None and len(buffer) >= size:
            self.source = _source(self._buffer)
            self.is_complete = True
        return len(self._buffer) - before


def _size(buffer: bytes) -> int | None:
    """How long the header is that begins so; None: that cannot be told yet."""
    if WORD.startswith(buffer[: len(WORD)]):
        end = buffer.find(b"\r\n")
        if end >= 0:
            return end + 2
        if len(buffer) >= MAX_LINE_BYTES:
            raise ProxyError("the PROXY line does not end")
        return None
    if SIGNATURE.startswith(buffer[: len(SIGNATURE)]):
        if len(buffer) < FIXED_BYTES:
            return None
        return FIXED_BYTES + int.from_bytes(buffer[14:16], "big")
    raise ProxyError("no PROXY header, which proxies in proxy_networks have to send")


def _source(header: bytes) -> Source | None:
    return _line_source(header) if header.startswith(WORD) else _binary_source(header)


def _line_source(header: bytes) -> Source | None:
    match = LINE.fullmatch(header)
    if match is None or len(header) > MAX_LINE_BYTES:
        raise ProxyError(f"not a PROXY line: {header!r}")
    if match[1] is None:
        return None
    version = int(match[1][3:])
    host, _ = (_host(text.decode("latin-1"), version) for text in match.group(2, 3))
    port, _ = (_port(int(text)) for text in match.group(4, 5))
    return host, port


def _host(text: Any, version: int) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ProxyError(f"no address: {text!r}") from None
    if address.version != version:
        raise ProxyError(f"no IPv{version} address: {text!r}")
    return str(address)


def _port(port: int) -> int:
    if port > 65535:
        raise ProxyError(f"no port: {port}")
    return port


def _binary_source(header: bytes) -> Source | None:
    command, family = header[12], header[13]
    if command not in (LOCAL, PROXY):
        raise ProxyError(f"unknown version or command {command:#04x}")
    if command == LOCAL:
        return None
    if family not in ADDRESS_BYTES or len(header) < FIXED_BYTES + ADDRESS_BYTES[family]:
        raise ProxyError(f"unknown family {family:#04x}, or too short for it")
    if family == TCP4:
        return str(ipaddress.IPv4Address(header[16:20])), int.from_bytes(header[24:26], "big")
    if family == TCP6:
        return str(ipaddress.IPv6Address(header[16:32])), int.from_bytes(header[48:50], "big")
    return None
