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
from ..networks import Networks
from ..stats import WorkerStats
from .connection import WebSocketConnection
from .http_socket import HttpSocket
from .limits import HeadWait
from .server import WebServer

if TYPE_CHECKING:
    from ...worker import Worker

FLUSH_SECONDS = 1.0  # for the last Close frames
FLUSH_STEP_SECONDS = 0.01
LONGEST = 60.0  # a limit that is none need not be looked at often


class WebSocketService(CallbackService):
    """Gives the websockets of one worker process to its callbacks, plain HTTP to its application.

    Args:
        is_tls: connections come with a `TlsFilter`.
        networks: who may ask for something, and whose word on that is believed.
        ping_interval: seconds of silence before a Ping, and then before the end; 0: never.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        send_timeout: seconds a peer may take nothing of what waits for it; 0: any time.

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
        networks: Networks | None = None,
        ping_interval: float = 20.0,
        handshake_timeout: float = 10.0,
        send_timeout: float = 30.0,
    ) -> None:
        super().__init__(worker, reactor, stats)
        self.networks = networks or Networks()
        self.ping_interval = ping_interval
        self.handshake_timeout = handshake_timeout
        self.origins = worker.settings().origins
        self.waiting: set[HeadWait] = set()
        self._handlers = Group()
        self._is_tls = is_tls
        self._server: WebServer | None = None
        self.send_timeout = send_timeout
        reactor.debts.send_timeout = send_timeout
        self._checker: Any = None
        if ping_interval:
            self._checker = reactor.loop.timer(ping_interval / 4, ping_interval / 4)
            self._checker.start(self._check, update=True)

    def make_server(self, listener: Any) -> WebServer:
        """The server that accepts connections for it."""
        self._server = WebServer(self, listener, self._is_tls)
        return self._server

    def accept(self, socket: Any, address: Any, tls: TlsFilter | None = None) -> None:
        """Serve the peer on `socket`."""
        sock = GeventSocket(socket.family, socket.type, 0, socket.detach())
        assert self._server is not None
        self._handlers.spawn(self._server.handle, HttpSocket(sock, tls, self.send_timeout), address)

    def after_fork_in_child(self) -> None:
        """As for text; the sockets of HTTP are gevent's, whose hub must not be touched."""
        super().after_fork_in_child()
        for handler in self._handlers:
            if handler.args:
                handler.args[0].close_in_child()

    def close_idle(self, idle_seconds: float) -> None:
        """As for text; when draining, also give up on requests that nobody sends."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections.values()):
            connection.close_if_idle(since, self.is_draining)
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
        if self._checker is not None:
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
    def has_work(self) -> bool:
        return super().has_work or bool(self._handlers)

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._handlers

    @property
    def _why(self) -> str:
        return "shutting down" if self.is_draining else "idle"

    def _check(self) -> None:
        now = monotonic()
        for connection in list(self.connections.values()):
            connection.check(now, self.ping_interval)
