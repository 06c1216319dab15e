"""A text service of callbacks: what Workerman's `onMessage` is, as opposed to `@task` functions."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent

from ..address import format_address
from ..net.reactor import Reactor
from .shared_listener import SharedListener, TextServer, hand_over_silent
from .stats import WorkerStats
from .worker_connection import WorkerConnection

if TYPE_CHECKING:
    from ..worker import Worker

CLOSE_SECONDS = 1.0  # for the last calls of `on_close`
CLOSE_STEP_SECONDS = 0.01


class CallbackService:
    """Gives the connections of one worker process to its callbacks.

    Attributes:
        running: greenlets that are calling the user, each for one connection.
        connections: the open ones, by their ids; the user has them as `worker.connections`.
    """

    def __init__(self, worker: Worker, reactor: Reactor, stats: WorkerStats) -> None:
        self.worker = worker
        self.reactor = reactor
        self.stats = stats
        self.running = 0
        self.is_draining = False
        self.connections: dict[int, WorkerConnection] = worker.connections

    def make_server(self, listener: Any) -> SharedListener:
        """The server that accepts connections for it; `on_connect` may speak first."""
        hand_over_silent(listener)
        return TextServer(listener)

    def accept(self, socket: Any, address: Any, tls: Any = None) -> None:
        """Serve the peer on `socket`."""
        connection = WorkerConnection(self)
        self.connections[connection.id] = connection
        connection._accept(socket, format_address(address), tls)

    def after_fork_in_child(self) -> None:
        """This is a child that a callback has forked: leave the connections to the worker."""
        self.reactor.debts.after_fork_in_child()
        for connection in self.connections.values():
            connection.after_fork_in_child()

    def serve_newest(self) -> None:
        """Nothing: connections are read when the loop says so."""

    def forget(self, connection: WorkerConnection) -> None:
        """`connection` has been closed."""
        if self.connections.pop(connection.id, None) is not None:
            self.stats.closed(connection.bytes_read, connection.bytes_written)

    def entered(self) -> None:
        """A greenlet begins to call the user."""
        self.running += 1
        self.stats.enter(monotonic())
        self.stats.done += 1
        self.stats.set_running(self.running)
        self.stats.executing[0] = 1

    def finished(self) -> None:
        """It is through."""
        self.running -= 1
        self.stats.set_running(self.running)

    def drain(self) -> None:
        """Let the peers go: `close_idle` closes each connection whose callbacks are through."""
        self.is_draining = True

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections that wait for nothing, and on which nothing has gone either way."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections.values()):
            connection.close_if_idle(since, self.is_draining)

    def stop(self) -> None:
        """The drain's time is up."""

    def abort(self) -> None:
        """Close every connection now, and let `on_close` be called of each."""
        stuck = self.running
        for connection in list(self.connections.values()):
            connection.destroy()
        gevent.sleep(0)  # those calls are queued: they begin now
        deadline = monotonic() + CLOSE_SECONDS
        while self.running > stuck and monotonic() < deadline:
            gevent.sleep(CLOSE_STEP_SECONDS)

    def oldest(self) -> tuple[int, float]:
        """Callbacks are not watched one by one."""
        return 0, 0.0

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        now = monotonic()
        return [
            {
                "peer": connection.remote_address,
                "protocol": "text",
                "outstanding": int(connection.is_busy),
                "bytes_read": connection.bytes_read,
                "bytes_written": connection.bytes_written,
                "send_buffer": connection._buffered,
                "idle_seconds": round(now - connection.last_active, 3),
            }
            for connection in self.connections.values()
        ]

    @property
    def is_full(self) -> bool:
        return False

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.connections
