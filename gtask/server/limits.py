"""`Limits`: where deadlines are kept, and how a task that must not go on is ended.

A call is answered at its deadline, whatever its task does. Then `TaskTimeout` is raised in the
task, which may clean up for some seconds; then it is killed, a few times, a second apart. A task
that ignores all of that gives its turn to others, and its process is replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

from greenlet import GreenletExit

from ..errors import TaskCancelled, TaskTimedOut, TaskTimeout
from ..logs.loggers import get_logger
from .execution import Execution
from .stats import WorkerStats
from .turns import Turns

log = get_logger("gtask.tasks")

CLEANUP_SECONDS = 5.0  # what a task may take to end after its limit, before it is killed
KILL_SECONDS = 1.0  # between two kills
KILLS = 5  # after which the task is given up


class Limits:
    """Ends calls at their deadlines, or because their caller says so; all of it in the hub.

    Attributes:
        on_abandoned: called with the name of a task that cannot be ended.
    """

    def __init__(self, loop: Any, turns: Turns, stats: WorkerStats) -> None:
        self._loop = loop
        self._turns = turns
        self._stats = stats
        self.on_abandoned: Callable[[str], None] | None = None

    def keep(self, call: Execution) -> None:
        """See to the call's deadline, if it has one."""
        if call.deadline is not None and not call.is_answered:
            self._start_timer(call, max(0.0, call.deadline - monotonic()), self._expired, call)

    def cancel(self, call: Execution) -> None:
        """Answer the call with `TaskCancelled`, and end its task."""
        call.refuse(TaskCancelled(f"{call.function}: cancelled"))
        if call.greenlet is None:
            self._forget(call)
        else:  # by the hub, not by the greenlet that reads the cancel
            self._loop.run_callback(self.end, call, GreenletExit("cancelled"))

    def _start_timer(
        self, call: Execution, seconds: float, then: Callable[..., None], *args: Any
    ) -> None:
        call.stop_timer()
        call.timer = self._loop.timer(seconds)
        call.timer.start(then, *args, update=True)

    def _expired(self, call: Execution) -> None:
        limit = f"{call.function}: timed out"
        if call.greenlet is None:
            call.refuse(TaskTimedOut(f"{limit} before its turn came"))
            self._forget(call)
            return
        after = monotonic() - call.started
        call.refuse(TaskTimedOut(f"{limit} after {after:.3g} s"))
        self.end(call, TaskTimeout(limit))
        log.warning("task %r timed out after %.3g s", call, after)

    def _forget(self, call: Execution) -> None:
        """A call that has its answer and no turn: give its place and its arguments back."""
        self._turns.leave(call)
        call.stop_timer()

    def end(self, call: Execution, how: BaseException) -> None:
        """Raise `how` in a task whose caller has been answered, and again until it has ended."""
        if call.is_done:
            return
        call.greenlet.throw(how)
        if call.is_done:
            return
        call.kills += 1
        call.stop_timer()
        if call.kills > KILLS:
            self._abandon(call)
        else:
            wait = CLEANUP_SECONDS if call.kills == 1 else KILL_SECONDS
            self._start_timer(call, wait, self.end, call, GreenletExit("time limit"))

    def _abandon(self, call: Execution) -> None:
        self._turns.give_back(call)
        self._stats.abandoned()
        if self.on_abandoned is not None:
            self.on_abandoned(call.function)
        log.error("task %r ignores its end; its turn is given to others", call)
