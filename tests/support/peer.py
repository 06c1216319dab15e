"""A plain blocking peer on a raw socket: what `nc` or a PHP script would be."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from .wait import SLOWNESS


class Peer:
    """One connection to a text service.

    Args:
        address: ``(host, port)``, or a path of a unix socket.
    """

    def __init__(self, address: tuple[str, int] | str, timeout: float = 10.0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        if family == socket.AF_INET and ":" in address[0]:
            family = socket.AF_INET6
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout * SLOWNESS)
        self.socket.connect(address)
        self._buffer = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes:
        """The next line without its LF; EOFError at the end of the stream."""
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def json(self) -> Any:
        return json.loads(self.line())

    def ask(self, message: Any) -> Any:
        """Send `message` (bytes as they are, else as JSON) and read one reply."""
        if not isinstance(message, bytes):
            message = json.dumps(message).encode()
        self.send(message + b"\n")
        return self.json()

    def bare(self, function: str, *args: Any, **named: Any) -> Any:
        return self.ask({"function": function, "args": list(args) or named})

    def rpc(self, method: str, params: Any, id: Any = 1) -> Any:
        return self.ask({"jsonrpc": "2.0", "method": method, "params": params, "id": id})

    def rest(self) -> bytes:
        """All that comes until the end of the stream."""
        data = self._buffer
        while chunk := self.socket.recv(65536):
            data += chunk
        return data

    def is_closed(self) -> bool:
        """The server has closed this connection."""
        try:
            return self.rest() == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Close with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()
