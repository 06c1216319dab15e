"""The run of a call: as an `Execution` where it needs to be an object, in a `Turn` that runs it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

from gevent import monkey
from greenlet import greenlet

from ..errors import TaskError, TaskFailed
from ..protocols.messages import Call, notification
from ..tasks import TaskFunction, running_task

if TYPE_CHECKING:
    from .dispatch import TaskConnection
    from .service import TaskService

log = logging.getLogger("gtask.tasks")

MAX_SPARE_TURNS = 128  # parked greenlets; each holds about 20 kB

_switch = greenlet.switch
# The patched one tells greenlets apart, not threads.
native_thread = monkey.get_original("_thread", "get_ident")


class Execution(Call):
    """A call that waits for its turn or has blocked; what `current_task` gives.

    Attributes:
        deadline: when it is answered in any case, or None.
        is_answered: its caller has been told something; what the task still does goes nowhere.
        is_done: it has ended.
    """

    # Class attributes instead of slots: most of them keep these values.
    batch: Batch | None = None
    deadline: float | None = None
    is_answered = False
    is_counted = False  # it is one of the service's `running`
    is_done = False
    is_kept = False  # it is one of its connection's outstanding calls
    kills = 0
    runner: Any = None
    timer: Any = None
    bound: tuple[list[Any], dict[str, Any]]
    connection: TaskConnection
    started: float
    task: TaskFunction

    def __repr__(self) -> str:
        return f"{self.function} id={self.id} of {self.connection.peer}"

    @property
    def peer(self) -> str:
        return self.connection.peer

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller, if it asked and keeps up with reading."""
        if not self.wants_progress or self.is_answered:
            return
        line = notification(
            "gtask.progress", {"id": self.id, "done": done, "total": total, "note": note}
        )
        connection = self.connection
        if native_thread() == connection.service.thread:
            connection.send_progress(line)
        else:  # a `blocking` task, in its native thread
            loop = connection._reactor.loop
            loop.run_callback_threadsafe(connection.send_progress, line)

    def set_limit(self, now: float, service_timeout: float) -> None:
        """The task starts: its own or its service's limit may come before its caller's."""
        self.started = now
        limit = self.task.timeout
        if limit is None:
            limit = service_timeout
        if limit and (self.deadline is None or now + limit < self.deadline):
            self.deadline = now + limit


class Batch:
    """The answers of a JSON-RPC batch, until all of them are there."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._answers: list[bytes] = []

    def add(self, answer: bytes | None) -> bytes | None:
        """Take one answer (None for a notification); returns the whole reply with the last."""
        self._missing -= 1
        if answer is not None:
            self._answers.append(answer)
        if self._missing or not self._answers:
            return None
        return b"[" + b",".join(self._answers) + b"]"


class Turn(greenlet):
    """A greenlet that takes up calls of one connection after the other, parked in between.

    It is used again because a new one costs 30 to 40 µs (see `gtask.net.reactor`).

    Attributes:
        call: the arguments of the `Call` that runs now.
        execution: that call as an object; made when somebody asks, since most never need one.
        context: what each call's own context is copied from.
        is_over: it is parked.
        is_detached: its call has blocked, and the hub has gone on without it.
    """

    call: tuple[Any, ...]
    connection: TaskConnection
    task: TaskFunction
    started: float

    def __init__(self, service: TaskService) -> None:
        super().__init__(parent=service.reactor.hub)
        self._hub = service.reactor.hub
        self._spare = service.spare_turns
        self.context = Context()
        self.context.run(running_task.set, self.current)
        self.execution: Execution | None = None
        self.is_over = False
        self.is_detached = False

    def run(self, work: Callable[[Turn], object]) -> None:
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

    def current(self) -> Execution:
        """The call that runs in this turn."""
        execution = self.execution
        if execution is None:
            execution = self.execution = Execution(*self.call)
            execution.connection = self.connection
            execution.task = self.task
            execution.set_limit(self.started, self.connection.service.task_timeout)
        return execution


def failure_of(call: Execution, error: BaseException) -> TaskError:
    """What a caller is told of an exception; the traceback goes to the log."""
    log.error("task %r failed", call, exc_info=error)
    try:
        message = str(error)
    except Exception:  # a user's own __str__
        message = ""
    name = type(error).__name__
    data = {"type": name, "message": message}
    return TaskFailed(f"{name}: {message}" if message else name, data)
