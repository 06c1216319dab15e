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
        last_active: when something last came or went; monotonic, seconds.
    """

    __slots__ = ("__weakref__", "_kept_bytes", "_service", "last_active", "worker")

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
        self._kept_bytes = 0  # of messages that are not whole or not delivered, as debts count them
        for name in CONNECTION_CALLBACKS:
            setattr(self, name, getattr(worker, name))

    @property
    def is_busy(self) -> bool:
        """A callback runs, or waits to."""
        return self._busy or bool(self._events)

    def send(self, data: Data) -> bool:
        # News for a peer that only listens is activity too: a drain does not cut it off.
        self.last_active = monotonic()
        return super().send(data)

    def _received(self, data: bytes) -> None:
        self.last_active = monotonic()
        before = len(self._events)
        super()._received(data)
        self._count_kept(len(data), len(self._events) > before)

    def _count_kept(self, size: int, has_message: bool) -> None:
        """Tell how much is kept of messages: `size` was read, and perhaps a message is whole."""
        if not self._events:
            size = self._decoder.partial_bytes
        else:
            size += self._kept_bytes
        if size or self._kept_bytes:
            self._kept_bytes = size
            self.last_active = monotonic()
            self._reactor.debts.owes_rest(self, size, has_message)

    def _deliver(self) -> None:
        service = self._service
        service.entered()
        try:
            super()._deliver()
        finally:
            service.finished()
            if self._kept_bytes:
                self._count_kept(0, True)

    def _progressed(self) -> None:
        self.last_active = monotonic()

    def close_if_idle(self, since: float, is_draining: bool) -> None:
        """Close it if it waits for nothing, and nothing has gone either way after `since`."""
        is_uploading = is_draining and (self._kept_bytes > 0 or self._is_mid_record)
        if self.last_active >= since or self.is_busy or is_uploading or self._has_unread():
            return
        if not self._buffered:
            self._close_idle(is_draining)
        elif not is_draining:  # then it has its time to take what is sent to it
            self._abort("idle for too long, with messages that it does not take")

    def _close_idle(self, is_draining: bool) -> None:
        self.close()

    # -- as a debtor --------------------------------------------------------------------------

    def _must_take(self) -> bool:
        return True

    def _is_read(self) -> bool:
        return not (self._stalled or self._user_paused or self._decoder.failed)

    def _closed(self, reason: str) -> None:
        self._service.forget(self)
        self._kept_bytes = 0
        self._reactor.debts.forget(self)
        super()._closed(reason)
