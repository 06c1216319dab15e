"""How long an HTTP peer is waited for."""

from __future__ import annotations

from time import monotonic
from types import TracebackType
from typing import Any

import gevent

BODY_SECONDS = 60.0  # a peer may stand still this long within a body ...
BODY_BYTES = 64  # ... and stands still who has sent less than this meanwhile


class HeadWait:
    """The time in which this greenlet waits for the head of a request, as a context.

    It ends by `end`, when the head is there; by the time limit; or by `give_up`. The latter two
    end the block.

    Args:
        waiting: where this wait is to be found while it lasts.
        seconds: the time limit; 0: none.

    Attributes:
        since: when it began; monotonic, seconds.
    """

    def __init__(self, waiting: set[HeadWait], seconds: float) -> None:
        self.since = monotonic()
        self._waiting = waiting
        self._greenlet: Any = gevent.getcurrent()  # a Greenlet, which its type does not tell
        self._limit = gevent.Timeout(seconds or None)

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


class BodyWait:
    """The time in which a peer has to send more of a body: each `BODY_BYTES` give it anew.

    A limit for the whole would end steady uploads over slow lines; one for each piece would let a
    byte a minute keep a connection for ever.
    """

    def __init__(self) -> None:
        self._bytes = 0
        self._deadline = monotonic() + BODY_SECONDS

    @property
    def seconds_left(self) -> float:
        """Never quite 0, which sockets take for "do not wait"."""
        return max(0.001, self._deadline - monotonic())

    def received(self, size: int) -> None:
        """So many bytes of the body have come."""
        self._bytes += size
        if self._bytes >= BODY_BYTES:
            self._bytes = 0
            self._deadline = monotonic() + BODY_SECONDS
