"""`Fleet`: the endpoints of one pool and their connections: who takes a call, when more are opened.

The endpoint with the fewest calls takes the next one, and of its connections that with the fewest.
So a host that has come back with one connection gets the share of the others, with four.
"""

from __future__ import annotations

import random
from math import inf
from time import monotonic

from ..address import Address
from ..net.reactor import Reactor
from .bare import BareConnection
from .connection import OPENING, PROBING, ClientConnection, ConnectionOwner
from .endpoint import COMPARED, Endpoint
from .options import Options
from .rpc import RpcConnection


class Fleet:
    """Picks connections, and opens them.

    Args:
        owner: of the connections.

    Attributes:
        endpoints: as the user gave them.
        only: the endpoint, if there is one only.
        connections: all that are not closed yet; their `stage` says which take calls.
        can_grow: some endpoint may get one more connection,
        is_thin: and has none at all.
    """

    def __init__(
        self, reactor: Reactor, addresses: list[Address], options: Options, owner: ConnectionOwner
    ) -> None:
        self._kind = BareConnection if options.dialect == "bare" else RpcConnection
        self.connections: list[ClientConnection] = []
        self.endpoints: list[Endpoint] = []
        self.only: Endpoint | None = None
        self._in_turn: list[Endpoint] = []  # the one that was given a call last at the end
        for address in addresses:
            limit, capacity = options.connections, self._kind.capacity
            self.add(Endpoint(reactor, address, limit, self._try_again, capacity))
        self.can_grow = True
        self.is_thin = True
        self._reactor = reactor
        self._options = options
        self._owner = owner

    def add(self, endpoint: Endpoint) -> None:
        """Take one more endpoint into use, at any place in turn.

        Programs that make one call each shall not all begin with the same one.
        """
        self.endpoints.append(endpoint)
        self.only = None if self._in_turn else endpoint
        self._in_turn.insert(random.randrange(len(self.endpoints)), endpoint)

    def pick(self, avoid: Endpoint | None) -> ClientConnection | None:
        """The connection for the next call, or None.

        Args:
            avoid: an endpoint to be taken only if there is no other.
        """
        endpoint = self._pick_endpoint(avoid) or avoid
        connection: ClientConnection | None = None
        if endpoint is not None:
            connection = endpoint.least_loaded()
        if connection is None:  # of those that take one call at a time another may be free
            free = (each.least_loaded() for each in self.endpoints if each.ready)
            connection = next((each for each in free if each is not None), None)
        return connection

    def _pick_endpoint(self, avoid: Endpoint | None) -> Endpoint | None:
        """The one with the fewest calls of those that come next, in turn."""
        best, least, left = None, inf, COMPARED
        for endpoint in self._in_turn:
            if not endpoint.ready or endpoint is avoid:
                continue
            score = endpoint.load if endpoint.record is None else self._score(endpoint)
            if score < least:
                best, least = endpoint, score
                if not score:
                    break
            left -= 1
            if not left:
                break
        if best is not None and len(self._in_turn) > 1:
            self._in_turn.remove(best)
            self._in_turn.append(best)
        return best

    def _score(self, endpoint: Endpoint) -> float:
        loads = [each.load for each in self.endpoints if each.ready]
        return endpoint.score(sum(loads) / len(loads), monotonic())

    # -- more connections, and fewer ------------------------------------------------------------

    def open(self, endpoint: Endpoint) -> None:
        """Open one more connection."""
        connection = self._kind(self._reactor, self._owner, endpoint, self._options)
        self.connections.append(connection)
        connection.connect()

    def grow(self, needed: int) -> list[Endpoint]:
        """The endpoints to open a connection to: those without any, else one if it is needed.

        Args:
            needed: calls that could do with a connection of their own.
        """
        roomy = [endpoint for endpoint in self.endpoints if endpoint.has_room]
        thin = [endpoint for endpoint in roomy if not endpoint.in_use]
        if thin or not roomy or self.opening >= needed:
            return thin
        # Where a server has just sent us away there may be none to come back to.
        return [min(roomy, key=lambda endpoint: (endpoint.in_use, endpoint.goaway_at))]

    def recount(self) -> None:
        """See which endpoints may get one more connection."""
        self.can_grow = self.is_thin = False
        for endpoint in self.endpoints:
            if endpoint.has_room:
                self.can_grow = True
                if not endpoint.in_use:
                    self.is_thin = True

    @property
    def opening(self) -> int:
        """Connections that are being made."""
        return sum(connection.stage is OPENING for connection in self.connections)

    @property
    def is_unreachable(self) -> bool:
        """All endpoints are down, and none has accepted a connection that it says nothing on."""
        return all(endpoint.is_down for endpoint in self.endpoints) and not any(
            connection.stage is PROBING for connection in self.connections
        )

    def is_only_silent(self, connection: ClientConnection) -> bool:
        """No other connection waits for a word of the same endpoint."""
        return not any(
            other.stage is PROBING
            for other in self.connections
            if other is not connection and other.endpoint is connection.endpoint
        )

    def has_another(self, endpoint: Endpoint | None) -> bool:
        """Another endpoint takes calls, too."""
        return any(each.ready for each in self.endpoints if each is not endpoint)

    def is_first_back(self, endpoint: Endpoint) -> bool:
        """All were away, and the endpoint has its first connection again."""
        is_back = endpoint.failures > 0 and len(endpoint.ready) == 1
        return is_back and not self.has_another(endpoint)

    def why_unreachable(self) -> str:
        """The last failures, for people."""
        return "; ".join(f"{each.address}: {each.why}" for each in self.endpoints)

    def stop_timers(self) -> None:
        """Try no endpoint again."""
        for endpoint in self.endpoints:
            endpoint.close()

    def _try_again(self, endpoint: Endpoint) -> None:
        """An endpoint was down for long enough."""
        if endpoint.has_room:
            self.open(endpoint)
        self.recount()
