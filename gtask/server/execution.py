"""`Execution`: a call as an object, for the calls that need to be one; and the answers of a batch."""

from __future__ import annotations

import contextlib
from typing import Any, Protocol
from weakref import WeakSet

from ..binding import TaskFunction
from ..errors import TaskError, TaskFailed
from ..logs.loggers import get_logger
from ..printable import printable
from ..protocols.messages import Call, notification
from ..protocols.text import MAX_FRAME_BYTES

log = get_logger("gtask.tasks")

MAX_MESSAGE_CHARACTERS = 10000  # of an exception's message, for its caller; the log has all of it
ERROR_BYTES = 200  # what an error instead of an answer takes in a batch


class CallerConnection(Protocol):
    """What a call needs of the connection that it came by."""

    @property
    def peer(self) -> str:
        """The caller's address, for people."""
        ...

    @property
    def is_stopping(self) -> bool:
        """The process is to end."""
        ...

    def answer(self, call: Execution, reply: bytes) -> None:
        """Give the call its one answer."""

    def find(self, id: str | int) -> Execution | None:
        """The call of that id, if it waits or has blocked."""

    def is_congested(self) -> bool:
        """So much waits to be sent that nothing more is to be started."""
        ...

    def let_go(self, call: Execution) -> None:
        """The call's arguments are not needed any more."""

    def run_waiting(self, call: Execution) -> None:
        """A turn has become free for the call, which waited for one."""

    def send_progress(self, line: bytes) -> None:
        """Send a progress notification, from any native thread."""


class Execution(Call):
    """A call that waits for its turn or has blocked; what `current_task` gives.

    Moments are seconds of the monotonic clock.

    Attributes:
        adopted: the calls that its task has made and that end with it, or None.
        attempt, deliveries, enqueued_at: see `CurrentTask`.
        batch: the JSON-RPC batch that it is part of.
        bound: the arguments, as its function takes them.
        deadline: when it is answered in any case, or None.
        greenlet: the `TaskGreenlet` in which it has blocked.
        has_turn: it is one of the service's running tasks.
        is_answered: its caller has been told something; what the task still does goes nowhere.
        is_done: it has ended.
        is_kept: its arguments count among those that wait or run.
        is_outstanding: its connection counts it as not answered yet.
        kills: how often its end was asked for.
        started: when it got its turn.
        timer: the loop's, for its deadline.
        weight: bytes that its arguments take, about.
    """

    # Class attributes instead of slots: most calls keep most of these values.
    adopted: WeakSet[Any] | None = None
    attempt = 1
    batch: Batch | None = None
    deliveries = 1
    enqueued_at: float | None = None
    deadline: float | None = None
    greenlet: Any = None
    has_turn = False
    is_answered = False
    is_done = False
    is_kept = False
    is_outstanding = False
    kills = 0
    timer: Any = None
    weight = 0
    bound: tuple[list[Any], dict[str, Any]]
    connection: CallerConnection
    started: float
    task: TaskFunction

    def __repr__(self) -> str:
        return f"{self.function} id={printable(self.id)} of {self.connection.peer}"

    @property
    def peer(self) -> str:
        return self.connection.peer

    @property
    def is_stopping(self) -> bool:
        """The process is to end: a long task may stop where it can go on later."""
        return self.connection.is_stopping

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller, if it asked and keeps up with reading."""
        if self.wants_progress and not self.is_answered:
            report = {"id": self.id, "done": done, "total": total, "note": note}
            self.connection.send_progress(notification("gtask.progress", report))

    def set_limit(self, now: float, service_timeout: float) -> None:
        """The task starts: its own or its service's limit may come before its caller's."""
        self.started = now
        limit = self.task.timeout
        if limit is None:
            limit = service_timeout
        if limit and (self.deadline is None or now + limit < self.deadline):
            self.deadline = now + limit

    def refuse(self, error: TaskError) -> None:
        """Answer the caller instead of the task, if it has no answer yet."""
        if not self.is_answered:
            self.connection.answer(self, self.error(error))
        if self.adopted:
            self._cancel_adopted()

    def adopt(self, call: Any) -> None:
        """Cancel `call` when the caller is told that the task is cancelled or has timed out."""
        if self.adopted is None:
            self.adopted = WeakSet()
        self.adopted.add(call)

    def _cancel_adopted(self) -> None:
        for call in list(self.adopted or ()):
            try:
                call.cancel()
            except Exception as caught:  # of a thread that has ended, perhaps
                log_error("task %r: a call of its own", self, error=caught)

    def stop_timer(self) -> None:
        """Nothing is to happen at the deadline any more."""
        if self.timer is not None:
            self.timer.close()
            self.timer = None


class Batch:
    """The answers of a JSON-RPC batch, until all of them are there.

    Args:
        size: how many there will be.
        limit: bytes that all of them may have.

    Attributes:
        missing: how many are not there yet.
        size: bytes of those that are.
    """

    def __init__(self, size: int, limit: int = MAX_FRAME_BYTES) -> None:
        self.missing = size
        self._limit = limit
        self._answers: list[bytes] = []
        self.size = 0

    def room(self) -> int:
        """Bytes that the next answer may have, so that errors for the others still fit in."""
        kept = min((self.missing - 1) * ERROR_BYTES, self._limit // 2)
        return self._limit - self.size - kept - 2

    def add(self, answer: bytes | None) -> bytes | None:
        """Take one answer (None for a notification); returns the whole reply with the last."""
        self.missing -= 1
        if answer is not None:
            self._answers.append(answer)
            self.size += len(answer) + 1
        if self.missing or not self._answers:
            return None
        return b"[" + b",".join(self._answers) + b"]"


def failure_of(call: Execution, error: BaseException) -> TaskError:
    """What a caller is told of an exception; the traceback goes to the log."""
    try:
        message = str(error)
    except BaseException:  # a user's own __str__
        message = ""
    if len(message) > MAX_MESSAGE_CHARACTERS:
        message = message[:MAX_MESSAGE_CHARACTERS] + " ..."
    name = type(error).__name__
    data = {"type": name, "message": message}
    failure = TaskFailed(f"{name}: {message}" if message else name, data)
    log_error("task %r failed", call, error=error)
    return failure


def log_error(message: str, *args: Any, error: BaseException | None = None) -> None:
    """Log what happened in a task's greenlet, which goes on whatever becomes of that.

    Where a handler of the user's is called in that greenlet, which a worker never does, the end of
    the task may be raised in it.
    """
    with contextlib.suppress(BaseException):
        log.error(message, *args, exc_info=error)
