"""`Service`: what a worker process asks of what it serves, be it tasks, callbacks or websockets."""

from __future__ import annotations

import socket
from typing import Any, Protocol

from ..protocols.tls import TlsFilter
from .shared_listener import SharedListener


class Service(Protocol):
    """What serves the connections of a worker: tasks, callbacks, or websockets and HTTP."""

    @property
    def is_full(self) -> bool:
        """No connection may be accepted now."""
        ...

    @property
    def is_idle(self) -> bool:
        """Nothing runs, waits or is connected."""
        ...

    @property
    def has_work(self) -> bool:
        """Something runs or waits that would be cut off now; a peer that does not read is none."""
        ...

    def make_server(self, listener: socket.socket) -> SharedListener:
        """The server that accepts connections for it, not started."""
        ...

    def accept(self, socket: Any, address: Any, tls: TlsFilter | None = None) -> None:
        """Serve the peer on `socket`; hub only."""

    def serve_newest(self) -> None:
        """Serve what has come already on the connection that was accepted last."""

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: leave the connections to the worker."""

    def drain(self) -> None:
        """Let the peers go."""

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections that wait for nothing and were silent for so long."""

    def stop(self) -> None:
        """The drain's time is up: start nothing more."""

    def abort(self) -> None:
        """Close every connection now."""

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        ...

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        ...
