"""`Turns`: which tasks run, at most `concurrency` of them, and which calls wait for their turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..errors import Draining, Overloaded
from ..protocols.messages import BARE
from .execution import Execution
from .stats import WorkerStats

MAX_WAITING = 10000  # JSON-RPC calls of one process that may wait for a turn
QUEUE_SHARE = 8  # of so many free turns one is for durable tasks, if calls wait, too
SERVE_SECONDS = 0.005  # what is started at a time, before the loop looks at all else


class Turns:
    """The turns of one worker process.

    A task that ends before it blocks needs none: nothing else can run meanwhile.

    Args:
        concurrency: tasks at once; others wait.
        loop: gevent's.

    Attributes:
        running: how many turns are taken.
        blocked: the tasks that have them.
        waiting: the calls that wait for one, the first first.
        queued: durable tasks that wait for one; each eighth that is free is theirs.
        is_closed: nothing more is started.
        on_full: called when no turn is left.
    """

    def __init__(self, concurrency: int, loop: Any, stats: WorkerStats) -> None:
        self.concurrency = concurrency
        self.running = 0
        self.blocked: set[Execution] = set()
        self.waiting: deque[Execution] = deque()
        self.queued: deque[Execution] = deque()
        self.is_closed = False
        self.on_full: Callable[[], None] | None = None
        self._loop = loop
        self._stats = stats
        self._handed_out = 0
        self._timer: Any = None  # for those that the time was up for

    @property
    def is_full(self) -> bool:
        return self.running >= self.concurrency

    def wait(self, call: Execution) -> bool:
        """Queue a call; False if it was refused instead."""
        if self.is_closed:
            call.refuse(Draining("the server is shutting down"))
        elif call.dialect != BARE and len(self.waiting) >= MAX_WAITING:
            call.refuse(
                Overloaded(f"{MAX_WAITING} calls are waiting already", {"retry_after": 1.0})
            )
        else:
            self.waiting.append(call)
            return True
        return False

    def serve_waiting(self) -> None:
        """Start what waits, as far as there are turns; only the hub may call this."""
        until = monotonic() + SERVE_SECONDS
        while (self.waiting or self.queued) and self.running < self.concurrency:
            if monotonic() > until:
                self._serve_waiting_later()
                return
            call = self._next()
            if not call.is_answered:  # it may have timed out or been cancelled
                call.connection.run_waiting(call)

    def _next(self) -> Execution:
        """Who is served next: a call that somebody waits for, each eighth time a durable task."""
        self._handed_out += 1
        if self.queued and (not self.waiting or self._handed_out % QUEUE_SHARE == 0):
            return self.queued.popleft()
        return self.waiting.popleft()

    def serve_waiting_soon(self) -> None:
        """The same, from a greenlet."""
        self._loop.run_callback(self.serve_waiting)

    def _serve_waiting_later(self) -> None:
        # Callbacks would be run before the loop turns, some dozens of them.
        if self._timer is None:
            self._timer = self._loop.timer(0)
        self._timer.start(self.serve_waiting)

    def take(self, call: Execution) -> None:
        """The call has blocked: from now on it is one of those that run."""
        call.has_turn = True
        self.blocked.add(call)
        self.running += 1
        self._stats.set_running(self.running)
        if self.running == self.concurrency and self.on_full is not None:
            self.on_full()

    def give_back(self, call: Execution) -> None:
        """The call has ended, or is given up."""
        if call.has_turn:
            call.has_turn = False
            self.blocked.discard(call)
            self.running -= 1
            self._stats.set_running(self.running)
            if self.waiting or self.queued:
                self.serve_waiting_soon()

    def close(self) -> None:
        """Refuse what waits and what still comes."""
        self.is_closed = True
        while self.waiting:
            self.waiting.popleft().refuse(Draining("the server is shutting down"))

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when; or 0, 0."""
        if not self.blocked:
            return 0, 0.0
        first = min(self.blocked, key=_started)
        return first.task.number, first.started


def _started(call: Execution) -> float:
    return call.started
