"""`Entrance`: how connections come into a worker process, from its listening sockets to its service."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..address import format_address
from ..logs.loggers import get_logger
from ..net.reactor import Reactor
from ..protocols.tls import TlsFilter
from .fairness import Fairness
from .interface import Service
from .lobby import Lobby
from .networks import Networks
from .overflow import Overflow
from .reception import Reception
from .shared_listener import SharedListener
from .stats import WorkerStats

if TYPE_CHECKING:
    from ..config import ServiceSettings

log = get_logger(__name__)


class Entrance:
    """Accepts connections when it is our turn, and hands those over that may connect.

    Args:
        listeners: the master's listening sockets, non-blocking; none if tasks come from a store alone.
        tls: the service's certificates, or None.
        lobby: where connections of the service wait that have no turn; None if they cannot.
        is_strict: the service runs one task at a time, see `Fairness`.

    Attributes:
        service: what serves the connections; to be set before `open`.
    """

    service: Service

    def __init__(
        self,
        settings: ServiceSettings,
        reactor: Reactor,
        stats: WorkerStats,
        listeners: Sequence[socket.socket],
        tls: ssl.SSLContext | None,
        lobby: Lobby | None,
        *,
        is_strict: bool,
    ) -> None:
        self.stats = stats
        self.listeners = list(listeners)
        self.servers: list[SharedListener] = []  # made in the worker, one for each listener
        self.tls = tls
        self.max_connections = settings.max_connections
        is_web = settings.listen.protocol == "websocket"
        self.networks = Networks(settings.allow, settings.proxy_networks, judges_requests=is_web)
        self.is_for_all = not settings.allow
        self.reception: Reception | None = None
        if settings.proxy_protocol == "on":
            timeout = settings.handshake_timeout
            self.reception = Reception(
                reactor, stats, self.networks, timeout, self.serve_connection
            )
        self.fairness = Fairness(
            reactor.loop,
            stats,
            self.is_full,
            siblings=settings.count,
            is_strict=is_strict,
        )
        self.overflow = Overflow(
            reactor.loop,
            self.listeners[0] if self.listeners else None,
            stats,
            settings.concurrency,
            lobby,
            self,
        )
        self.takes_guests = False  # what is accepted is left unread by `overflow`

    # -- its life -----------------------------------------------------------------------------

    def open(self) -> None:
        """Accept connections from now on."""
        for listener in self.listeners:
            server = self.service.make_server(listener)
            server.share(self.accept, self.fairness, self.service.serve_newest)
            self.fairness.overflow = self.overflow
            server.start()
            self.servers.append(server)

    def close(self, *, has_heirs: bool) -> None:
        """Accept never again: what is in the queue now only if there are no heirs who do."""
        for server in self.servers:
            if has_heirs:
                server.leave()
            else:
                server.finish()
        if self.servers:
            self.overflow.close(has_heirs=has_heirs)

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: leave the accepting to the worker."""
        for part in (*self.servers, self.overflow, self.reception):
            if part is not None:
                part.after_fork_in_child()
        for listener in self.listeners:
            listener.close()

    @property
    def is_idle(self) -> bool:
        """No connection waits for the word of a proxy."""
        return self.reception is None or self.reception.is_idle

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections whose proxy was silent for so long."""
        if self.reception is not None:
            self.reception.close_idle(idle_seconds)

    # -- connections, in the hub --------------------------------------------------------------

    def is_full(self) -> bool:
        """No connection is to be accepted, be it for want of turns or of connections."""
        return self.service.is_full or self.stats.connections >= self.max_connections

    def has_no_turn(self) -> bool:
        """Another connection could be taken, but none of its tasks."""
        connections = self.stats.connections + self.overflow.guests
        return self.service.is_full and connections < self.max_connections

    def accept_one(self) -> bool:
        """Accept a connection, whatever the gate says; False if there is none."""
        self.takes_guests = True
        try:
            return bool(self.servers) and self.servers[0].accept_one()
        finally:
            self.takes_guests = False

    def serve_newest(self) -> None:
        """Serve what has come already on the connection that was taken up last."""
        self.service.serve_newest()

    def accept(self, client: Any, address: Any) -> None:
        """Take up a connection, if its network may connect."""
        if self.reception is not None and self.networks.is_proxy(address):
            self.stats.accepted()
            self.reception.receive(client, address)
        elif not (self.is_for_all or self.networks.may_connect(address)):
            self.stats.refused()
            client.close()
            log.debug("refused %s", format_address(address))
        elif not (self.takes_guests and self.overflow.receive(client, address)):
            self.stats.accepted()
            self.serve_connection(client, address)

    def serve_connection(self, client: Any, address: Any) -> None:
        """Serve a connection that has been counted."""
        counted = self.stats.connections
        try:
            tls = TlsFilter(self.tls, server_side=True) if self.tls is not None else None
            self.service.accept(client, address, tls)
        except BaseException:
            if self.stats.connections == counted:  # the service has not counted it out itself
                self.stats.closed(0, 0)
            raise
