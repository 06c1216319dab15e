"""`Run`: one start of a durable task, as a call that has a store for its caller; and how it ended."""

from __future__ import annotations

from time import monotonic
from typing import Any

from ...errors import (
    BadArguments,
    InternalError,
    Reject,
    Retry,
    TaskError,
    TaskFailed,
    TaskTimedOut,
)
from ...protocols.jsontext import dumps
from ...protocols.messages import LOOSE
from ...queue.records import MAX_PAYLOAD_BYTES
from ...queue.states import Event
from ..execution import Execution, failure_of

PROGRESS_SECONDS = 0.25  # between two reports that are sent
MAX_MESSAGE = 10_000  # characters of an error's text that are kept


class Run(Execution):
    """What `current_task` gives to a durable task.

    Attributes:
        attempt: starts that were not interrupted, this one included.
        deliveries: all starts.
        enqueued_at: when it was put, in seconds of the unix clock.
        cut_by: why it was told to end: its limit has passed, or its end was asked for.
        bad_arguments: why its arguments do not fit its function.
    """

    attempt = 1
    deliveries = 1
    enqueued_at: float | None = None
    cut_by: TaskError | None = None
    bad_arguments: BadArguments | None = None
    told_at = 0.0

    def __init__(self, dealt: list[Any]) -> None:
        seq, fence, id, function, args, attempt, deliveries, enqueued_at, timeout_ms = dealt
        super().__init__(function, args, id, LOOSE, True)
        self.seq = seq
        self.fence = fence
        self.attempt = attempt
        self.deliveries = deliveries
        self.enqueued_at = enqueued_at / 1000
        self.limit = timeout_ms / 1000

    def set_limit(self, now: float, service_timeout: float) -> None:
        """The task starts: its limit is that of its put, its function or its service."""
        self.started = now
        self.deadline = now + self.limit if self.limit else None

    def refuse(self, error: TaskError) -> None:
        """Its limit has passed, or its end was asked for; its end is told when it has ended."""
        self.is_answered = True
        self.cut_by = error

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell whoever looks how far the task is, at most four times a second; from any thread."""
        now = monotonic()
        if now - self.told_at >= PROGRESS_SECONDS or done == total:
            self.told_at = now
            self.connection.report(self, [done, total, note])  # type: ignore[attr-defined]

    def returned(self, value: Any) -> list[Any]:
        """The end of a run that has returned; see `End` for its parts."""
        if isinstance(self.cut_by, TaskTimedOut):
            return self._end(Event.TIMED_OUT, self.cut_by)
        try:
            outcome = dumps(value)
        except InternalError as error:
            return self._end(Event.BAD_RESULT, error)
        if len(outcome) > MAX_PAYLOAD_BYTES:
            what = f"a result of {len(outcome)} bytes, at most {MAX_PAYLOAD_BYTES} are kept"
            return self._end(Event.BAD_RESULT, InternalError(what))
        return [self.seq, self.fence, Event.RETURNED.value, outcome.decode("ascii"), None]

    def raised(self, error: BaseException) -> list[Any]:
        """The end of a run that has raised `error`."""
        if self.cut_by is not None:
            is_late = isinstance(self.cut_by, TaskTimedOut)
            return self._end(Event.TIMED_OUT if is_late else Event.FAILED, self.cut_by)
        match error:
            case Retry():
                return self._end(Event.FAILED, _failure(error), error.after)
            case Reject():
                return self._end(Event.REJECTED, _failure(error))
            case BadArguments() if error is self.bad_arguments:
                return self._end(Event.BAD_ARGUMENTS, error)
            case _:
                return self._end(Event.FAILED, failure_of(self, error))

    def not_begun(self) -> list[Any]:
        """The end of a run that is given back, at no cost."""
        return [self.seq, self.fence, Event.UNDELIVERED.value, None, None]

    def interrupted(self) -> list[Any]:
        """The end of a run that its process does not finish."""
        return [self.seq, self.fence, Event.INTERRUPTED.value, None, None]

    def _end(self, event: Event, error: TaskError, after: float | None = None) -> list[Any]:
        error.message = error.message[:MAX_MESSAGE]
        try:
            outcome = dumps(error.as_dict())
        except InternalError:  # somebody's data is not JSON
            outcome = b""
        if not outcome or len(outcome) > MAX_PAYLOAD_BYTES:
            error.data = None
            outcome = dumps(error.as_dict())
        return [self.seq, self.fence, event.value, outcome.decode("ascii"), after]


def _failure(error: Retry | Reject) -> TaskFailed:
    data = {"type": type(error).__name__, "message": error.message}
    return TaskFailed(f"{type(error).__name__}: {error.message}", data)
