"""A listening socket of which no file and no port has the name."""

from __future__ import annotations

import socket
from typing import Any


class Listener(socket.socket):
    """Listens on an abstract unix address (unix(7)); its next accepts fail with `errors`."""

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX)
        self.errors: list[OSError] = []
        self.peers: list[socket.socket] = []
        self.bind("")
        self.listen(64)
        self.setblocking(False)

    def _accept(self) -> Any:
        if self.errors:
            raise self.errors.pop(0)
        return super()._accept()  # type: ignore[misc]

    def connect_peers(self, many: int = 1) -> None:
        """So many peers connect; see `peers`."""
        for _ in range(many):
            self.peers.append(socket.socket(socket.AF_UNIX))
            self.peers[-1].setblocking(False)
            self.peers[-1].connect(self.getsockname())

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        super().close()


def is_closed(peer: socket.socket) -> bool:
    """The other side has closed; waits for nothing."""
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
