"""The exceptions of gtask and the error codes of its wire, blame first.

GtaskError
├── ConfigError        the operator   a list of problems; programs exit with 78
├── ProtocolError      the peer       `fatal`: the connection cannot go on
│   └── FrameTooLong   the peer       fatal
└── TaskError          one call       what a caller is told: `code`, `message`, `data`
    ├── InvalidRequest, UnknownTask, BadArguments, InternalError
    ├── Overloaded, Draining, TaskCancelled, TaskTimedOut, WorkerLost
    ├── QueueFull, StoreUnavailable, UnknownJob, TaskExpired, TaskInterrupted
    └── TaskFailed     the task raised an exception

`Retry` and `Reject` are raised by durable tasks, for another try and for none.
`TaskTimeout` stands apart: it is a BaseException (as `gevent.Timeout` is), so that a task's
`except Exception` does not swallow its time limit.
"""

from __future__ import annotations

from typing import Any, ClassVar

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
UNKNOWN_FUNCTION = -32601
BAD_ARGUMENTS = -32602
INTERNAL_ERROR = -32603
OVERLOADED = -32000
TIMED_OUT = -32001
CANCELLED = -32002
DRAINING = -32003
WORKER_LOST = -32004
QUEUE_FULL = -32005
STORE_UNAVAILABLE = -32006
UNKNOWN_JOB = -32007
EXPIRED = -32008
INTERRUPTED = -32009
TASK_FAILED = 1


class GtaskError(Exception):
    """Base of every error that gtask raises."""


class ConfigError(GtaskError):
    """What the operator wrote cannot be used.

    Args:
        problems: one line each, e.g. ``conf/worker.ini [gtask] pid_fil: unknown key``.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class ProtocolError(GtaskError):
    """The peer broke the protocol; after a `fatal` error its connection cannot go on."""

    fatal: ClassVar[bool] = False

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class FrameTooLong(ProtocolError):
    """A frame passed `max_frame_bytes` before its LF was seen."""

    fatal = True

    def __init__(self, limit: int) -> None:
        super().__init__(INVALID_REQUEST, f"frame longer than {limit} bytes")


class TaskError(GtaskError):
    """One call failed.

    Attributes:
        code: the wire's error code (docs/protocol.md).
        message: one line for people.
        data: a dict with more, or None.
        retryable: the same call may succeed if it is made again; never so for the end of a
            durable task, whose `data` has "final".
    """

    code: int = INTERNAL_ERROR
    retryable: bool = False

    def __init__(self, message: str = "", data: Any = None, *, code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code
        if isinstance(data, dict) and data.get("final") is True:
            self.retryable = False

    def as_dict(self) -> dict[str, Any]:
        """The JSON-RPC error object."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return error

    @classmethod
    def from_dict(cls, error: Any) -> TaskError:
        """The exception for an error object a peer sent; a malformed one gives an InternalError."""
        if not isinstance(error, dict) or type(error.get("code")) is not int:
            return InternalError("malformed error object", {"error": error})
        code = error["code"]
        kind = _BY_CODE.get(code, TaskFailed if code > 0 else TaskError)
        message = error.get("message", "")
        if type(message) is not str:  # of a peer that may send anything, however deep or long
            message = f"a message that is no text but {type(message).__name__}"
        return kind(message, error.get("data"), code=code)


class InvalidRequest(TaskError):
    """The peer called our message malformed."""

    code = INVALID_REQUEST


class UnknownTask(TaskError):
    """No task of that name is served."""

    code = UNKNOWN_FUNCTION


class BadArguments(TaskError):
    """The arguments do not fit the task's parameters; the message names them."""

    code = BAD_ARGUMENTS


class InternalError(TaskError):
    """The server could not answer, e.g. the result is not JSON."""

    code = INTERNAL_ERROR


class Overloaded(TaskError):
    """The server (or the client's `max_pending`) is full; `data` may hold `retry_after` seconds."""

    code = OVERLOADED
    retryable = True


class TaskTimedOut(TaskError):
    """The call's time limit passed before its result came."""

    code = TIMED_OUT


class TaskCancelled(TaskError):
    """The call was cancelled."""

    code = CANCELLED


class Draining(TaskError):
    """The server is shutting down and did not start the task."""

    code = DRAINING
    retryable = True


class WorkerLost(TaskError):
    """The connection ended before the answer came (made by the client, never on the wire)."""

    code = WORKER_LOST
    retryable = True


class TaskFailed(TaskError):
    """The task raised an exception; `data` holds its `type` and `message`."""

    code = TASK_FAILED


class QueueFull(TaskError):
    """The store takes no more; `data` holds `retry_after` in seconds, and the `limit`."""

    code = QUEUE_FULL
    retryable = True


class StoreUnavailable(TaskError):
    """The store cannot be used; `data` holds the `reason`, and whether it has `accepted` the task.

    `accepted` is "no" or "unknown"; the same put with the same id is safe in either case.
    """

    code = STORE_UNAVAILABLE
    retryable = True


class UnknownJob(TaskError):
    """The store has no record of that id."""

    code = UNKNOWN_JOB


class TaskExpired(TaskError):
    """The task did not begin before its `expires` had passed."""

    code = EXPIRED


class TaskInterrupted(TaskError):
    """The task was cut off by the end of its process too often."""

    code = INTERRUPTED


class Retry(GtaskError):
    """Raised by a durable task that shall be tried again; it counts as an attempt.

    Args:
        after: seconds until then; None: as after any failure.
    """

    def __init__(self, message: str = "", *, after: float | None = None) -> None:
        super().__init__(message or "to be tried again")
        self.message = message or "to be tried again"
        self.after = after


class Reject(GtaskError):
    """Raised by a durable task that makes no sense to try again: it is dead at once."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message


class TaskTimeout(BaseException):
    """Raised inside a task when its time limit has passed; clean up and let it go on."""


_BY_CODE: dict[int, type[TaskError]] = {
    kind.code: kind
    for kind in (
        InvalidRequest,
        UnknownTask,
        BadArguments,
        InternalError,
        Overloaded,
        TaskTimedOut,
        TaskCancelled,
        Draining,
        WorkerLost,
        QueueFull,
        StoreUnavailable,
        UnknownJob,
        TaskExpired,
        TaskInterrupted,
        TaskFailed,
    )
}
