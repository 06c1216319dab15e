"""`Turn`: a greenlet that runs calls, one after the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

from ..binding import TaskFunction
from ..tasks import running_task
from .execution import Execution

if TYPE_CHECKING:
    from .dispatch import TaskConnection
    from .service import TaskService

log = logging.getLogger("gtask.tasks")

MAX_SPARE_TURNS = 128  # parked greenlets; each holds about 20 kB

_switch = greenlet.switch


class Turn:
    """A greenlet that takes up calls of one connection after the other, parked in between.

    It is used again because a new one costs 30 to 40 µs (see `gtask.net.reactor`).

    Attributes:
        connection, task, function, args, id, dialect, started: of the call that runs now.
        execution: that call as an object; made when somebody asks, since most never need one.
        context: of the call that runs now; holds nothing but which call that is.
        is_over: it is parked.
        is_detached: its call has blocked, and the hub has gone on without it.
        switch: let it go on, when it is parked with what to do.
        throw: raise an exception in it.
    """

    __slots__ = (
        "_greenlet",
        "_hub",
        "_spare",
        "args",
        "connection",
        "context",
        "dialect",
        "execution",
        "function",
        "id",
        "is_detached",
        "is_over",
        "started",
        "switch",
        "task",
        "throw",
    )

    connection: TaskConnection
    task: TaskFunction
    function: str
    args: Any
    id: Any
    dialect: int
    started: float

    def __init__(self, service: TaskService) -> None:
        self._hub = service.reactor.hub
        self._spare = service.spare_turns
        self.execution: Execution | None = None
        self.is_over = False
        self.is_detached = False
        own = self._greenlet = greenlet(self._run, self._hub)
        self.switch: Any = own.switch
        self.throw: Any = own.throw
        self.renew_context()

    def renew_context(self) -> None:
        """Forget the context variables that a call has set."""
        self.context = self._greenlet.gr_context = Context()
        self.context.run(running_task.set, self._asked)

    def _run(self, work: Callable[[Turn], object]) -> None:
        spare, hub = self._spare, self._hub
        while True:
            try:
                work(self)
            except BaseException:  # the edge: a kill that came between two calls, or our bug
                log.exception("%r was cut off", self)
            self.is_over = True
            if len(spare) >= MAX_SPARE_TURNS:
                return
            self.execution = None
            spare.append(self)
            try:
                work = _switch(hub)
            except BaseException:  # thrown at us while parked, e.g. by a late kill
                if self in spare:
                    spare.remove(self)
                return

    def _asked(self) -> Execution | None:
        """What `current_task` gives; another greenlet may have a copy of a context of ours."""
        return self.current() if getcurrent() is self._greenlet else None

    def current(self) -> Execution:
        """The call that runs in this turn."""
        execution = self.execution
        if execution is None:
            execution = Execution(self.function, self.args, self.id, self.dialect, False)
            self.execution = execution
            execution.connection = self.connection
            execution.task = self.task
            execution.set_limit(self.started, self.connection.service.task_timeout)
        return execution
