"""How long an HTTP peer is waited for."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any

import gevent

HTTP_SECONDS = 60.0  # a peer may stand still this long within a request or its answer


class HeadWait:
    """The time in which this greenlet waits for the head of a request, as a context.

    It ends by `end`, when the head is there; by the time limit; or by `give_up`. The latter two
    end the block.

    Args:
        waiting: where this wait is to be found while it lasts.
        seconds: the time limit.

    Attributes:
        since: when it began; monotonic, seconds.
    """

    def __init__(self, waiting: set[HeadWait], seconds: float) -> None:
        self.since = monotonic()
        self._waiting = waiting
        self._greenlet: Any = gevent.getcurrent()  # a Greenlet, which its type does not tell
        self._limit = gevent.Timeout(seconds)

    def __enter__(self) -> HeadWait:
        self._waiting.add(self)
        self._limit.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> bool:
        self.end()
        return error is self._limit

    def end(self) -> None:
        """The head is there."""
        self._waiting.discard(self)
        self._limit.close()

    def give_up(self) -> None:
        """Wait no longer; to be called from another greenlet."""
        self._greenlet.kill(self._limit, block=False)
