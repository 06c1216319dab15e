"""Addresses as users write them (`text://host:port`, `text+unix:///path`), and as they read them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from socket import SOCK_STREAM
from typing import Any

PROTOCOLS = ("text", "websocket")


@dataclass(frozen=True)
class Address:
    """Where to listen or connect, and the protocol spoken there.

    Attributes:
        protocol: "text" or "websocket".
        host: name or IP address without brackets; empty for a unix socket.
        port: TCP port; 0 lets the kernel choose one.
        path: file of a unix socket; empty for TCP.
    """

    protocol: str
    host: str = ""
    port: int = 0
    path: str = ""

    @property
    def is_nowhere(self) -> bool:
        """It is no address: a service that has a store alone listens nowhere."""
        return not self.protocol

    @property
    def is_unix(self) -> bool:
        return bool(self.path)

    @property
    def server_name(self) -> str:
        """The host as certificates name it: without the final dot, and without a scope."""
        return self.host.partition("%")[0].removesuffix(".")

    @property
    def sockaddr(self) -> str | tuple[str, int]:
        """What `socket.bind` and `socket.connect` take."""
        return self.path or (self.host, self.port)

    def __str__(self) -> str:
        if self.is_nowhere:
            return "nowhere"
        if self.path:
            return f"{self.protocol}+unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.protocol}://{host}:{self.port}"


NOWHERE = Address("")


@lru_cache(maxsize=128)  # 1.7 µs of each connection that a page opens to its tasks
def parse_address(url: str) -> Address:
    """Read `url`; the scheme's case is free, as in Workerman (`Text://`).

    Raises:
        ValueError: with a message that says what is wrong.
    """
    scheme, separator, rest = url.strip().partition("://")
    protocol, plus, transport = scheme.lower().partition("+")
    if not separator:
        raise ValueError(f"{url!r} has no scheme, expected e.g. text://127.0.0.1:12345")
    if protocol not in PROTOCOLS or (plus and transport != "unix"):
        raise ValueError(
            f"{url!r}: unknown scheme {scheme!r}, expected text, text+unix, websocket or websocket+unix"
        )
    if transport == "unix":
        if not rest.startswith("/") or rest == "/":
            raise ValueError(f"{url!r}: expected an absolute path after {protocol}+unix://")
        return Address(protocol, path=rest)
    host, colon, port = rest.rstrip("/").rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{url!r}: an IPv6 address is written in brackets, text://[::1]:12345")
    if (
        not colon
        or not re.fullmatch(r"[^\s/@\[\]]+", host)
        or not (port.isascii() and port.isdigit())
        or int(port) > 65535
    ):
        raise ValueError(f"{url!r}: expected {protocol}://HOST:PORT with a port of 0 to 65535")
    return Address(protocol, host, int(port))


def look_up(address: Address, getaddrinfo: Callable[..., list[Any]]) -> list[Any]:
    """All addresses of a name, by one of the functions that there are for that.

    Raises:
        OSError, ValueError: there are none.
    """
    host = address.host
    try:
        return getaddrinfo(host, address.port, type=SOCK_STREAM)
    except OSError:
        if not host.endswith("."):
            raise
    # Names of /etc/hosts, such as localhost, are not found with the final dot of DNS.
    return getaddrinfo(host[:-1], address.port, type=SOCK_STREAM)


def format_address(address: Any) -> str:
    """What `socket.getpeername` gives, for people: ``127.0.0.1:80``, ``[::1]:80`` or a path."""
    if isinstance(address, tuple):
        host = address[0]
        if ":" in host:  # of a socket for both families, an IPv4 peer's begins with ::ffff:
            host = host[7:] if host.startswith("::ffff:") and "." in host else f"[{host}]"
        return f"{host}:{address[1]}"
    if isinstance(address, bytes):  # of an abstract unix socket, unix(7): any octets
        return address.decode("utf-8", "backslashreplace")
    return str(address)
