"""`Reception`: has each proxy say for whom it has come, before anything else of a connection is read.

A small filter before the streams, in the hub: it takes the PROXY header off the socket and not a
byte more. Where `proxy_protocol` is off, there is none of this.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import MSG_DONTWAIT, MSG_PEEK
from time import monotonic
from typing import Any

from ..address import format_address
from ..logs.loggers import get_logger
from ..net.reactor import Reactor
from ..protocols.proxy import ProxyError, ProxyHeader
from .networks import Networks
from .stats import WorkerStats

log = get_logger(__name__)

READ = 1
PEEK_BYTES = 512  # headers are shorter, unless they carry certificates


class Reception:
    """Holds connections, which are counted already, until their headers are there.

    Args:
        timeout: seconds in which a header has to come; 0: any time.
        serve: called with a socket and the client's address, in the hub.
    """

    def __init__(
        self,
        reactor: Reactor,
        stats: WorkerStats,
        networks: Networks,
        timeout: float,
        serve: Callable[[Any, Any], None],
    ) -> None:
        self.reactor = reactor
        self.timeout = timeout
        self.waiting: set[Introduction] = set()
        self._stats = stats
        self._networks = networks
        self._serve = serve

    @property
    def is_idle(self) -> bool:
        return not self.waiting

    def receive(self, client: Any, proxy: Any) -> None:
        """Take up the connection on `client`; often its header is there by now."""
        introduction = Introduction(self, client, proxy)
        self.waiting.add(introduction)
        introduction.start()

    def close_idle(self, idle_seconds: float) -> None:
        """Give those up that have waited for so long."""
        since = monotonic() - idle_seconds
        for introduction in list(self.waiting):
            if introduction.since < since:
                introduction.refuse("no PROXY header")

    def admit(self, client: Any, address: Any) -> None:
        """The header is there: `address` is the client's."""
        if self._networks.may_connect(address):
            self._serve(client, address)
        else:
            self.turn_away(client, address, "may not connect")

    def turn_away(self, client: Any, address: Any, why: str) -> None:
        """Close a connection that is not served."""
        client.close()
        self._stats.refused()
        self._stats.closed(0, 0)
        log.info("%s: %s", format_address(address), why)

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave them to the worker."""
        for introduction in self.waiting:
            introduction.stop()
            introduction.close()


class Introduction:
    """One connection whose header is being read.

    Attributes:
        since: when that began; monotonic, seconds.
    """

    def __init__(self, reception: Reception, client: Any, proxy: Any) -> None:
        self.since = monotonic()
        self._reception = reception
        self._client = client
        self._proxy = proxy
        self._header = ProxyHeader()
        loop = reception.reactor.loop
        self._reader = loop.io(client.fileno(), READ)
        self._timer = loop.timer(reception.timeout) if reception.timeout else None

    def start(self) -> None:
        self._reader.start(self._readable)
        if self._timer is not None:
            why = f"no PROXY header in {self._reception.timeout:g} s"
            self._timer.start(self.refuse, why, update=True)  # the loop's clock may be late
        self._readable()

    def stop(self) -> None:
        for watcher in (self._reader, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()

    def close(self) -> None:
        """Close our end of the connection, without a word."""
        self._client.close()

    def refuse(self, why: str) -> None:
        """Close the connection."""
        self._leave()
        self._reception.turn_away(self._client, self._proxy, why)

    def _leave(self) -> None:
        self.stop()
        self._reception.waiting.discard(self)

    def _readable(self) -> None:
        try:
            is_complete = self._read()
        except BlockingIOError:
            return
        except (OSError, ProxyError) as error:
            self.refuse(str(error))
            return
        if is_complete:
            self._admit()

    def _read(self) -> bool:
        """Take what is there of the header off the socket."""
        while not self._header.is_complete:
            data = self._client.recv(PEEK_BYTES, MSG_PEEK | MSG_DONTWAIT)
            if not data:
                raise ProxyError("closed before its PROXY header")
            self._client.recv(self._header.feed(data), MSG_DONTWAIT)
        return True

    def _admit(self) -> None:
        self._leave()
        try:
            self._reception.admit(self._client, self._header.source or self._proxy)
        except Exception:  # the edge: gevent would end the watcher, and say less
            self._client.close()
            log.exception("%s: cannot take a connection", format_address(self._proxy))
