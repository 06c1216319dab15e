"""`Endpoint`: one address, and whether it is worth connecting to.

up ── no connection could be made ──► down ── after a while ──► one try ──► up, or down again
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sized
from math import inf
from typing import Any, Protocol

from ..address import Address
from ..errors import TaskError
from ..logs.loggers import get_logger
from ..net.reactor import Reactor
from ..printable import printable
from .record import Record

log = get_logger("gtask.client")

COMPARED = 8  # connections of which the least loaded gets a call
FIRST_PAUSE = 0.1  # seconds after the first failure; doubled with each further one
MAX_PAUSE = 10.0


class Loadable(Protocol):
    """What is asked of a connection that is to take a call."""

    @property
    def calls(self) -> Sized:
        """Those that are on it."""
        ...


class Endpoint:
    """One address of a service, as one pool sees it.

    Args:
        limit: connections that may be in use at once.
        capacity: calls that a connection takes at once.
        try_again: called with the endpoint in the hub when it was down for long enough.

    Attributes:
        in_use: connections that are opening or take calls.
        failures: connections that failed, one after the other.
        load: calls on its connections.
        ready: its connections that take calls, the one that was given a call last at the end.
        record: of its bad answers lately; None if there were none.
        why: the last failure.
        goaway_at: when it last sent its callers elsewhere, on the monotonic clock; 0: never.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        limit: int,
        try_again: Callable[[Endpoint], None],
        capacity: float = inf,
    ) -> None:
        self.address = address
        self.in_use = 0
        self.failures = 0
        self.load = 0
        self.ready: list[Any] = []
        self.record: Record | None = None
        self.why = ""
        self.goaway_at = 0.0
        self._limit = limit
        self._capacity = capacity
        self._reactor = reactor
        self._try_again = try_again
        self._timer: Any = None  # while down

    def __repr__(self) -> str:
        return f"<Endpoint {self.address} {'down' if self.is_down else 'up'} {self.in_use}>"

    @property
    def is_down(self) -> bool:
        """It failed, and is not tried again yet."""
        return self._timer is not None

    @property
    def has_room(self) -> bool:
        """One more connection may be opened."""
        limit = 1 if self.failures else self._limit
        return self._timer is None and self.in_use < limit

    def least_loaded(self) -> Any:
        """Of the connections that were given a call longest ago, so that equals share; or None."""
        best, least, left = None, self._capacity, COMPARED
        connection: Loadable
        for connection in self.ready:
            load = len(connection.calls)
            if load < least:
                best, least = connection, load
                if not load:
                    break
            if best is not None:
                left -= 1
                if not left:
                    break
        if best is not None and best is not self.ready[-1]:
            self.ready.remove(best)
            self.ready.append(best)
        return best

    def score(self, usual: float, now: float) -> float:
        """What to compare it by where it has a record; its load, and more.

        Args:
            usual: calls that an endpoint has on average.
        """
        assert self.record is not None
        score = self.record.score(self.load, usual, now)
        self._forget_record()
        return score

    def note(self, errors: list[TaskError | None], now: float) -> None:
        """It has answered calls, None standing for a result."""
        if self.record is not None:
            for error in errors:
                self.record.note(error, now)
            self._forget_record()

    def _forget_record(self) -> None:
        if self.record is not None and self.record.is_clean:
            self.record = None

    def failed(self, why: str) -> None:
        """Leave it alone for a while, the longer the more often it failed."""
        self.why = why
        if self._timer is None:
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures, 16))
            self.failures += 1
            self._timer = self._reactor.loop.timer(pause * random.uniform(0.5, 1.0))
            self._timer.start(self._pause_over, update=True)
            log.info("%s: %s; next try in about %.1f s", self.address, printable(why), pause)

    def worked(self) -> None:
        """A call was answered: it is as good as ever."""
        self.failures = 0

    def close(self) -> None:
        """Forget about being down."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def try_again(self) -> None:
        """Give it another chance now, if it is down."""
        if self.is_down:
            self._pause_over()

    def _pause_over(self) -> None:
        self.close()
        self._try_again(self)
