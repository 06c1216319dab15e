"""`Execution`: a call as an object, for the calls that need to be one; and the answers of a batch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from gevent import monkey

from ..binding import TaskFunction
from ..errors import TaskError, TaskFailed
from ..protocols.messages import Call, notification

if TYPE_CHECKING:
    from .dispatch import TaskConnection

log = logging.getLogger("gtask.tasks")

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


def failure_of(call: Execution, error: BaseException) -> TaskError:
    """What a caller is told of an exception; the traceback goes to the log."""
    log.error("task %r failed", call, exc_info=error)
    try:
        message = str(error)
    except BaseException:  # a user's own __str__
        message = ""
    name = type(error).__name__
    data = {"type": name, "message": message}
    return TaskFailed(f"{name}: {message}" if message else name, data)
