"""`WebSocketService`: what the web front end of one worker process does with its connections.

A new one is an HTTP connection, served in a greenlet by a `Handler`; after an upgrade it is a
`WebSocketConnection` on the hub, whose callbacks are called as those of a text connection.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pool import Group
from gevent.socket import socket as GeventSocket

from ...net.reactor import Reactor
from ...protocols.tls import TlsFilter
from ...protocols.websocket import GOING_AWAY
from ..callbacks import CallbackService
from ..stats import WorkerStats
from .connection import WebSocketConnection
from .limits import HTTP_SECONDS, HeadWait
from .server import WebServer
from .tls_socket import TlsSocket

if TYPE_CHECKING:
    from ...worker import Worker

FLUSH_SECONDS = 1.0  # for the last Close frames
FLUSH_STEP_SECONDS = 0.01


class WebSocketService(CallbackService):
    """Gives the websockets of one worker process to its callbacks, plain HTTP to its application.

    Args:
        is_tls: connections come with a `TlsFilter`.
        ping_interval: seconds of silence before a Ping, and then before the end; 0: never.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        send_timeout: seconds a peer may take nothing of what waits for it.

    Attributes:
        origins: the pages that may connect.
        waiting: the handlers' waits for a request's head.
    """

    connections: dict[int, WebSocketConnection]  # type: ignore[assignment]

    def __init__(
        self,
        worker: Worker,
        reactor: Reactor,
        stats: WorkerStats,
        *,
        is_tls: bool = False,
        ping_interval: float = 20.0,
        handshake_timeout: float = 10.0,
        send_timeout: float = 30.0,
    ) -> None:
        super().__init__(worker, reactor, stats)
        self.ping_interval = ping_interval
        self.handshake_timeout = handshake_timeout
        self.send_timeout = send_timeout
        self.origins = worker.settings().origins
        self.waiting: set[HeadWait] = set()
        self._handlers = Group()
        self._is_tls = is_tls
        self._server: WebServer | None = None
        period = min(ping_interval or send_timeout, send_timeout) / 4
        self._checker = reactor.loop.timer(period, period)
        self._checker.start(self._check, update=True)

    def make_server(self, listener: Any) -> WebServer:
        """The server that accepts connections for it."""
        self._server = WebServer(self, listener, self._is_tls)
        return self._server

    def accept(self, socket: Any, address: Any, tls: TlsFilter | None = None) -> None:
        """Serve the peer on `socket`."""
        sock = GeventSocket(socket.family, socket.type, 0, socket.detach())
        sock.settimeout(HTTP_SECONDS)
        assert self._server is not None
        self._handlers.spawn(
            self._server.handle, TlsSocket(sock, tls) if tls is not None else sock, address
        )

    def after_fork_in_child(self) -> None:
        """As for text; the sockets of HTTP are gevent's, whose hub must not be touched."""
        super().after_fork_in_child()
        for handler in self._handlers:
            if handler.args:
                sock = handler.args[0]
                (sock.bare if isinstance(sock, TlsSocket) else sock)._sock.close()

    def close_idle(self, idle_seconds: float) -> None:
        """As for text; when draining, also give up on requests that nobody sends."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections.values()):
            if connection.last_active < since and not connection.is_busy:
                connection.close_code(GOING_AWAY, self._why)
        if self.is_draining:
            for wait in list(self.waiting):
                if wait.since < since:
                    wait.give_up()

    def abort(self) -> None:
        """Close everything now: websockets with 1001, HTTP connections just so."""
        self.is_draining = True
        for connection in list(self.connections.values()):
            connection.close_code(GOING_AWAY, self._why)
        self._handlers.kill(timeout=FLUSH_SECONDS)
        self._flush()
        super().abort()
        self._checker.stop()
        self._checker.close()

    def _flush(self) -> None:
        deadline = monotonic() + FLUSH_SECONDS
        while self.connections and monotonic() < deadline:
            gevent.sleep(FLUSH_STEP_SECONDS)

    def report(self) -> list[dict[str, Any]]:
        """Each websocket, for the operator."""
        return [{**line, "protocol": "websocket"} for line in super().report()]

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._handlers

    @property
    def _why(self) -> str:
        return "shutting down" if self.is_draining else "idle"

    def _check(self) -> None:
        now = monotonic()
        for connection in list(self.connections.values()):
            connection.check(now, self.ping_interval, self.send_timeout)
