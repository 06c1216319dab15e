"""`Endpoint`: one address, and whether it is worth connecting to.

up ── no connection could be made ──► down ── after a while ──► one try ──► up, or down again
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

from ..address import Address
from ..net.reactor import Reactor

log = logging.getLogger("gtask.client")

FIRST_PAUSE = 0.1  # seconds after the first failure; doubled with each further one
MAX_PAUSE = 10.0


class Endpoint:
    """One address of a service, as one pool sees it.

    Args:
        limit: connections that may be in use at once.
        try_again: called with the endpoint in the hub when it was down for long enough.

    Attributes:
        in_use: connections that are opening or take calls.
        failures: connections that failed, one after the other.
        why: the last failure.
        goaway_at: when it last sent its callers elsewhere, on the monotonic clock; 0: never.
    """

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        limit: int,
        try_again: Callable[[Endpoint], None],
    ) -> None:
        self.address = address
        self.in_use = 0
        self.failures = 0
        self.why = ""
        self.goaway_at = 0.0
        self._limit = limit
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

    def failed(self, why: str) -> None:
        """Leave it alone for a while, the longer the more often it failed."""
        self.why = why
        if self._timer is None:
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures, 16))
            self.failures += 1
            log.info("%s: %s; next try in about %.1f s", self.address, why, pause)
            self._timer = self._reactor.loop.timer(pause * random.uniform(0.5, 1.0))
            self._timer.start(self._pause_over, update=True)

    def worked(self) -> None:
        """A call was answered: it is as good as ever."""
        self.failures = 0

    def close(self) -> None:
        """Forget about being down."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _pause_over(self) -> None:
        self.close()
        self._try_again(self)
