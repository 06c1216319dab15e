"""`Deadlines`: checks calls when their time comes, with one timer for all of them.

A heap of times and ids. Calls that have ended leave their entries behind; these are swept when
they are more than the living, so that an entry costs a push and a share of a sweep.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from math import inf
from time import monotonic
from typing import Any

from ..net.reactor import Reactor

SLACK = 64  # dead entries that are not worth a sweep


class Deadlines:
    """Calls `check(call, now)` in the hub for each call that still is in `calls` at its time.

    Args:
        calls: what is alive, by id.
        check: is given the time of the monotonic clock, in seconds.
    """

    def __init__(
        self, reactor: Reactor, calls: dict[int, Any], check: Callable[[Any, float], None]
    ) -> None:
        self._loop = reactor.loop
        self._calls = calls
        self._check = check
        self._heap: list[tuple[float, int]] = []
        self._timer: Any = None
        self._fires_at = inf

    def add(self, when: float, id: int) -> None:
        """Check the call `id` at the time `when` of the monotonic clock."""
        heap = self._heap
        if len(heap) > 2 * len(self._calls) + SLACK:
            heap[:] = [entry for entry in heap if entry[1] in self._calls]
            heapify(heap)
        heappush(heap, (when, id))
        if when < self._fires_at:
            self._arm(when)

    def close(self) -> None:
        """Check nothing any more."""
        self._heap.clear()
        self._disarm()

    def _fire(self) -> None:
        self._disarm()
        heap, calls = self._heap, self._calls
        now = monotonic()
        while heap and (heap[0][0] <= now or heap[0][1] not in calls):
            call = calls.get(heappop(heap)[1])
            if call is not None:
                self._check(call, now)
        if heap and heap[0][0] < self._fires_at:
            self._arm(heap[0][0])

    def _arm(self, when: float) -> None:
        self._disarm()
        self._fires_at = when
        self._timer = self._loop.timer(max(0.0, when - monotonic()))
        self._timer.start(self._fire, update=True)

    def _disarm(self) -> None:
        self._fires_at = inf
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
