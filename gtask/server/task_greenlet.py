"""`TaskGreenlet`: a greenlet that runs tasks, one after the other, and is parked in between."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any

from greenlet import getcurrent, greenlet

from ..binding import TaskFunction
from ..patches.leftovers import FORKED, end_process, forget_current_thread
from ..tasks import running_task
from .execution import Execution, log_error

MAX_PARKED = 128  # each holds about 20 kB

_switch = greenlet.switch


class TaskGreenlet:
    """Takes up the calls of one connection after the other.

    It is used again because a new one costs 30 to 40 µs (see `gtask.net.reactor`).

    Args:
        hub: gevent's, to which it gives the CPU back.
        parked: where it puts itself when it has nothing to do.
        task_timeout: seconds a task may take by default; 0 is no limit.

    Attributes:
        connection, task, function, args, id, dialect: of the call that runs now.
        frame: the text of that call, until it blocks.
        started: when that call began, on the monotonic clock.
        execution: that call as an object; made when somebody asks, since most never need one.
        context: of the call that runs now; holds nothing but which call that is.
        has_blocked: the hub has gone on without the call that runs in it.
        is_parked: it waits to be given work, or has ended.
        is_spent: a call has left thread-locals in it, so it ends instead of taking up another.
        locals: what gevent notes in it: thread-locals that were touched, and the like.
        switch: let it go on; with what to do, when it is parked.
        throw: raise an exception in it.
    """

    __slots__ = (
        "_greenlet",
        "_hub",
        "_parked",
        "_task_timeout",
        "args",
        "connection",
        "context",
        "dialect",
        "execution",
        "frame",
        "function",
        "has_blocked",
        "id",
        "is_parked",
        "is_spent",
        "locals",
        "started",
        "switch",
        "task",
        "throw",
    )

    connection: Any
    task: TaskFunction
    function: str
    args: Any
    id: Any
    dialect: int
    started: float

    def __init__(self, hub: Any, parked: list[TaskGreenlet], task_timeout: float) -> None:
        self._hub = hub
        self._parked = parked
        self._task_timeout = task_timeout
        self.execution: Execution | None = None
        self.frame = b""
        self.has_blocked = False
        self.is_parked = self.is_spent = False
        own = self._greenlet = greenlet(self._run, self._hub)
        self.switch: Any = own.switch
        self.throw: Any = own.throw
        self.locals: dict[str, Any] = own.__dict__
        self.renew_context()

    def forget_call(self) -> None:
        """The next call has nothing to do with what this one has set."""
        if len(self.context) > 1:
            self.renew_context()
        if self.locals:
            self.end_if_forked(None)
            forget_current_thread(self._greenlet)
            self.is_spent = bool(self.locals)

    def end_if_forked(self, error: BaseException | None) -> None:
        """The call has forked, and this is the child: it has no answer to give."""
        if FORKED in self.locals:
            end_process(error)

    def renew_context(self) -> None:
        """Forget the context variables that a call has set."""
        self.context = self._greenlet.gr_context = Context()
        self.context.run(running_task.set, self._current_here)

    def _run(self, work: Callable[[TaskGreenlet], object]) -> None:
        parked, hub = self._parked, self._hub
        while True:
            try:
                work(self)
            except BaseException as error:  # the edge: a kill between two calls, or our bug
                log_error("%r was cut off", self, error=error)
            self.is_parked = True
            if self.is_spent or len(parked) >= MAX_PARKED:
                return
            self.execution = self.args = None  # parked, it must not keep what a peer has sent
            self.frame = b""
            parked.append(self)
            try:
                work = _switch(hub)
            except BaseException:  # thrown at us while parked, e.g. by a late kill
                if self in parked:
                    parked.remove(self)
                return

    def _current_here(self) -> Execution | None:
        """What `current_task` gives; another greenlet may have a copy of a context of ours."""
        return self.current() if getcurrent() is self._greenlet else None

    def current(self) -> Execution:
        """The call that runs in this greenlet, as an object."""
        execution = self.execution
        if execution is None:
            execution = Execution(self.function, self.args, self.id, self.dialect, False)
            self.execution = execution
            execution.connection = self.connection
            execution.task = self.task
            execution.set_limit(self.started, self._task_timeout)
        return execution
