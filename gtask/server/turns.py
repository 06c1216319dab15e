"""`Turns`: which tasks run, at most `concurrency` of them, and which calls wait for their turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..errors import Draining, Overloaded
from ..protocols.messages import BARE
from .execution import CallerConnection, Execution
from .stats import WorkerStats

MAX_WAITING = 10000  # JSON-RPC calls of one process that may wait for a turn
MAX_PENDING_BYTES = 256 * 1024 * 1024
QUEUE_SHARE = 8  # of so many free turns one is for durable tasks, if calls wait, too
SERVE_SECONDS = 0.005  # what is started at a time, before the loop looks at all else


class Turns:
    """The turns of one worker process.

    A task that ends before it blocks needs none: nothing else can run meanwhile.

    Args:
        concurrency: tasks at once; others wait.
        max_pending_bytes: past that, no more calls may wait, and no large ones come in.
        loop: gevent's.

    Attributes:
        running: how many turns are taken.
        blocked: the tasks that have them.
        pending_bytes: what the arguments of calls that wait or run take, and the answers of batches
            that are not whole.
        waiting: the calls that wait for one, the first first; none that has its answer, and none
            whose caller does not read: those are set aside.
        queued: durable tasks that wait for one; each eighth that is free is theirs.
        is_closed: nothing more is started.
        on_full: called when no turn is left.
    """

    def __init__(
        self,
        concurrency: int,
        loop: Any,
        stats: WorkerStats,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.concurrency = concurrency
        self.max_pending_bytes = max_pending_bytes
        self.pending_bytes = 0
        self.running = 0
        self.blocked: set[Execution] = set()
        self.waiting: OrderedDict[Execution, None] = OrderedDict()
        self.queued: deque[Execution] = deque()
        self.is_closed = False
        self.on_full: Callable[[], None] | None = None
        self._aside: dict[CallerConnection, list[Execution]] = {}  # by those who do not read
        self._aside_calls = 0  # how many those are
        self._loop = loop
        self._stats = stats
        self._handed_out = 0
        self._timer: Any = None  # for those that the time was up for

    @property
    def is_full(self) -> bool:
        return self.running >= self.concurrency

    @property
    def waits(self) -> int:
        """How many calls wait, those that are set aside included."""
        return len(self.waiting) + self._aside_calls

    def wait(self, call: Execution) -> bool:
        """Queue a call; False if it was refused instead."""
        if self.is_closed:
            call.refuse(Draining("the server is shutting down"))
        elif call.dialect != BARE and self.waits >= MAX_WAITING:
            call.refuse(overloaded(f"{MAX_WAITING} calls are waiting already"))
        elif not self.has_room(call.weight):
            call.refuse(no_room())
        else:
            self.waiting[call] = None
            return True
        return False

    def has_room(self, weight: int) -> bool:
        """Whether a call whose arguments take so much may come in; one may in any case."""
        return not self.pending_bytes or self.pending_bytes + weight <= self.max_pending_bytes

    def leave(self, call: Execution) -> None:
        """The call waits no longer: it has its answer."""
        self.waiting.pop(call, None)
        aside = self._aside.get(call.connection)
        if aside is not None and call in aside:
            aside.remove(call)
            self._aside_calls -= 1
        call.connection.let_go(call)

    def serve_waiting(self) -> None:
        """Start what waits, as far as there are turns; only the hub may call this."""
        until = monotonic() + SERVE_SECONDS
        while (self.waiting or self.queued) and self.running < self.concurrency:
            if monotonic() > until:
                self._serve_waiting_later()
                return
            call = self._next()
            if call.is_answered:
                continue
            if call.connection.is_congested():
                self._aside.setdefault(call.connection, []).append(call)
                self._aside_calls += 1
            else:
                call.connection.run_waiting(call)

    def resume(self, connection: CallerConnection) -> None:
        """The connection's answers have been taken: its calls wait for their turn again."""
        aside = self._aside.pop(connection, None)
        if aside is not None:
            self._aside_calls -= len(aside)
            for call in reversed(aside):
                self.waiting[call] = None
                self.waiting.move_to_end(call, last=False)
            self.serve_waiting_soon()

    def _next(self) -> Execution:
        """Who is served next: a call that somebody waits for, each eighth time a durable task."""
        self._handed_out += 1
        if self.queued and (not self.waiting or self._handed_out % QUEUE_SHARE == 0):
            return self.queued.popleft()
        return self.waiting.popitem(last=False)[0]

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
        for connection in list(self._aside):
            self.resume(connection)
        while self.waiting:
            self.waiting.popitem(last=False)[0].refuse(Draining("the server is shutting down"))

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when; or 0, 0."""
        if not self.blocked:
            return 0, 0.0
        first = min(self.blocked, key=_started)
        return first.task.number, first.started


def overloaded(what: str) -> Overloaded:
    """The error for a call that cannot be taken now."""
    return Overloaded(what, {"retry_after": 1.0})


def no_room() -> Overloaded:
    """The error for a call whose arguments are too much now."""
    return overloaded("the arguments of the calls that wait or run take too much memory already")


def _started(call: Execution) -> float:
    return call.started
