"""`Fairness`: which of a service's processes accepts the next connection.

A worker that is full shuts its gate, and so does one that has more to do than the idlest, for a
moment: the kernel then wakes somebody else. That makes the listen queue the one queue of the
service, and the idlest workers its servers; `Overflow` sees to those who wait in it when all are full.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from .gate import Gate
from .overflow import Overflow
from .stats import CONNECTION_LOAD, FRESH_LOAD, SINGLE_LOAD, WorkerStats

DEFER_SECONDS = 0.00025  # for each eighth of a connection that we have more than the idlest
MAX_DEFER_SECONDS = 0.02  # then accept anyway: the idlest may be stuck
HEAD_START = FRESH_LOAD + CONNECTION_LOAD  # the load that a process may have more than the idlest
BURST = 8  # connections that are accepted before the loop turns again


class Fairness:
    """Opens and shuts a gate, as the loads of this process and its siblings are.

    Args:
        loop: gevent's.
        stats: our load and our siblings'.
        is_full: nothing may be accepted now; when it becomes so, call `reconsider`.
        siblings: how many processes the service has, as configured; more are found.
        is_strict: accept only as the idlest of all, and reluctantly where nobody is idle (for
            services that run one task at a time).

    Attributes:
        gate: None while nothing is accepted at all.
        is_shared: there are several processes.
        accepted: connections, in this turn of the loop.
        overflow: takes what nobody has a turn for; None where nothing is turned away.
    """

    def __init__(
        self,
        loop: Any,
        stats: WorkerStats,
        is_full: Callable[[], bool],
        *,
        siblings: int = 1,
        is_strict: bool = False,
    ) -> None:
        self._loop = loop
        self._stats = stats
        self._is_full = is_full
        self._is_strict = is_strict
        self._configured = self._rows = siblings
        self.is_shared = siblings > 1
        self._deferred_at = 0.0  # since when we wait for an idler sibling to accept; 0: we do not
        self.accepted = 0
        self._timer: Any = None
        self.gate: Gate | None = None
        self.overflow: Overflow | None = None
        self._was_full = False  # when last reconsidered

    @property
    def is_open(self) -> bool:
        """Connections may be accepted now."""
        return self.gate is not None and self.gate.is_open

    def start(self, gate: Gate) -> None:
        """Take part in accepting."""
        self.gate = gate
        self.refresh()

    def stop(self) -> None:
        """Take no part any more."""
        self.gate = None
        self._stats.on_change = None
        self._stop_timer()
        if self.overflow is not None:
            self.overflow.stop()

    def refresh(self) -> None:
        """To be called every second: look for new siblings, and for a wake-up that was lost."""
        self._rows = max(self._configured, self._stats.siblings())
        self.is_shared = self._rows > 1
        gate = self.gate
        if gate is not None and gate.is_open:
            gate.shut()
            gate.open()  # registering anew has the kernel look at the queue
        if gate is not None and self.overflow is not None:
            self.overflow.resume()  # somebody else's guest may have come there just now
        self.reconsider()

    def burst(self) -> int:
        """How many connections to accept before the loop turns again.

        Among siblings the gate decides after each. A process without any takes one more than
        came in the turn before, if it is busy. Either saves most turns of the loop where each
        task has a connection of its own.
        """
        alone = self.accepted + 1 if self._stats.connections > 1 else 1
        self.accepted = 0
        return BURST if self.is_shared else alone

    def reconsider(self) -> None:
        """Open or shut the gate, as the loads are now."""
        gate = self.gate
        if gate is None:
            return
        if self._is_full():
            self._deferred_at = 0.0
            gate.shut()
            self._stats.on_change = self.reconsider
            self._was_full = True
            if self.overflow is not None:
                self.overflow.start()
            return
        if self.is_shared:
            excess, least = self._stats.excess(self._rows)
            if self._is_ahead(excess, least) and self._may_defer(max(1, excess)):
                gate.shut()
                self._stats.on_change = self.reconsider
                return
        self._deferred_at = 0.0
        self._stats.on_change = None
        if self._was_full:
            self._was_full = False
            if self.overflow is not None:
                self.overflow.resume()
        gate.open()

    def pause(self, seconds: float) -> None:
        """Accept nothing for so long."""
        if self.gate is not None:
            self.gate.shut()
            self._reconsider_in(seconds)

    def _is_ahead(self, excess: int, least: int) -> bool:
        """A sibling should have the next connection."""
        if self._is_strict and excess + least >= SINGLE_LOAD:
            return True  # we have something to do; where all have, one is perhaps about to end it
        return excess > HEAD_START + least // 16

    def _may_defer(self, excess: int) -> bool:
        now = monotonic()
        if not self._deferred_at:
            self._deferred_at = now
        left = self._deferred_at + MAX_DEFER_SECONDS - now
        if left <= 0:
            return False
        self._reconsider_in(min(left, DEFER_SECONDS * excess))
        return True

    def _reconsider_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self._loop.timer(seconds)
        self._timer.start(self.reconsider)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
