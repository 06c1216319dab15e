"""`WorkerConnection`: what a text connection and a websocket that a worker has accepted share."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Protocol

from ..callbacks import CONNECTION_CALLBACKS
from ..net.connection import Data, TcpConnection
from ..net.reactor import Reactor

if TYPE_CHECKING:
    from ..worker import Worker


class ConnectionOwner(Protocol):
    """What a connection needs of the service that it belongs to."""

    worker: Worker
    reactor: Reactor

    def entered(self) -> None:
        """A greenlet begins to call the connection's callbacks."""

    def finished(self) -> None:
        """It has called all that there was."""

    def forget(self, connection: WorkerConnection) -> None:
        """The connection has been closed."""


class WorkerConnection(TcpConnection):
    """An accepted connection; starts with its worker's callbacks.

    Attributes:
        worker: the `Worker` it belongs to.
        last_active: when a message last came or went; monotonic, seconds.
    """

    __slots__ = ("__weakref__", "_service", "last_active", "worker")

    def __init__(self, service: ConnectionOwner) -> None:
        worker = service.worker
        super().__init__(
            max_frame_bytes=worker.max_frame_bytes,
            max_send_buffer_bytes=worker.max_send_buffer_bytes,
            reactor=service.reactor,
        )
        self._service = service
        self.worker = worker
        self.last_active = monotonic()
        for name in CONNECTION_CALLBACKS:
            setattr(self, name, getattr(worker, name))

    @property
    def is_busy(self) -> bool:
        """A callback runs, or waits to."""
        return self._busy or bool(self._events)

    @property
    def is_receiving(self) -> bool:
        """A message is on its way to us: a part of it has come."""
        return bool(self._decoder.is_mid_frame) or self._is_mid_record

    def send(self, data: Data) -> bool:
        # News for a peer that only listens is activity too: a drain does not cut it off.
        self.last_active = monotonic()
        return super().send(data)

    def _received(self, data: bytes) -> None:
        self.last_active = monotonic()
        super()._received(data)

    def _deliver(self) -> None:
        service = self._service
        service.entered()
        try:
            super()._deliver()
        finally:
            service.finished()

    def _closed(self, reason: str) -> None:
        self._service.forget(self)
        super()._closed(reason)
