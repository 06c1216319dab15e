"""`Sharing`: calls wait a moment for the connections that are opening.

Else a burst would all go to the one connection, and hence process, that is first. After an outage
its processes come back one after the other, and the moment is longer: meanwhile one connection
after the other is opened, and each is given a call when it has none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..net.reactor import Reactor

SECONDS = 0.02  # that calls wait for connections which open at the same time
SLOW_SECONDS = 0.5  # that they wait after an outage, at most
STEP_SECONDS = 0.1  # between two connections then


class Sharing:
    """The timers of such a moment.

    Args:
        end: called in the hub when it is over.
        step: called in the hub when another connection may be opened after an outage.

    Attributes:
        is_on: it lasts.
        is_slow: it is one after an outage.
    """

    def __init__(self, reactor: Reactor, end: Callable[[], None], step: Callable[[], None]) -> None:
        self._loop = reactor.loop
        self._end = end
        self._step = step
        self._timers: list[Any] = []
        self.is_on = False
        self.is_slow = False

    def begin(self) -> None:
        """Have calls wait for the connections that open now."""
        if not self.is_on:
            self.is_on = True
            self._start(self._loop.timer(SECONDS), self._end)

    def begin_slowly(self) -> None:
        """Have calls wait for the processes that come back."""
        self.stop()
        self.is_on = self.is_slow = True
        self._start(self._loop.timer(SLOW_SECONDS), self._end)
        self._start(self._loop.timer(STEP_SECONDS, STEP_SECONDS), self._step)

    def stop(self) -> None:
        """It is over."""
        self.is_on = self.is_slow = False
        for timer in self._timers:
            timer.stop()
            timer.close()
        self._timers.clear()

    def _start(self, timer: Any, then: Callable[[], None]) -> None:
        self._timers.append(timer)
        timer.start(then, update=True)
