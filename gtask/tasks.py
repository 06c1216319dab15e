"""Tasks: marking functions with `@task`, finding them, and what they can know of their call.

Knows nothing of sockets or greenlets. Only functions that are marked can ever be called by a peer.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar, overload

from .binding import TaskFunction
from .current import CurrentTask, running_task
from .errors import ConfigError

__all__ = ["CurrentTask", "TaskMark", "current_task", "find_tasks", "running_task", "task"]

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__gtask__"
_RESERVED = ("gtask.", "rpc.")


@dataclass(frozen=True)
class TaskMark:
    """What `@task` leaves on a function.

    Attributes:
        name: the name peers call; None is the function's own.
        timeout: soft time limit in seconds; None is the service's `task_timeout`, 0 is none.
        blocking: run in a native thread, because the function blocks without yielding.
        retries, retry_delay, max_retry_delay, result_ttl: of durable tasks, times in seconds.
    """

    name: str | None = None
    timeout: float | None = None
    blocking: bool = False
    retries: int = 0
    retry_delay: float = 5.0
    max_retry_delay: float = 600.0
    result_ttl: float = 300.0

    def serve(self, function: Callable[..., Any]) -> TaskFunction:
        """The function as a worker serves it."""
        served = TaskFunction(function, self.name, self.timeout, bool(self.blocking))
        served.retries = self.retries
        served.retry_delay = float(self.retry_delay)
        served.max_retry_delay = float(self.max_retry_delay)
        served.result_ttl = float(self.result_ttl)
        return served


@overload
def task(function: F, /) -> F: ...


@overload
def task(
    *,
    name: str | None = None,
    timeout: float | None = None,
    blocking: bool = False,
    retries: int = 0,
    retry_delay: float = 5.0,
    max_retry_delay: float = 600.0,
    result_ttl: float = 300.0,
) -> Callable[[F], F]: ...


def task(
    function: Any = None,
    /,
    *,
    name: str | None = None,
    timeout: float | None = None,
    blocking: bool = False,
    retries: int = 0,
    retry_delay: float = 5.0,
    max_retry_delay: float = 600.0,
    result_ttl: float = 300.0,
) -> Any:
    """Mark a function as a task; it stays callable as before.

    Args:
        name: the name peers call, by default the function's own.
        timeout: seconds after which `TaskTimeout` is raised inside the task and its caller is
            told so; by default the service's `task_timeout`; 0 is no limit.
        blocking: run it in a native thread: for C code that blocks without yielding. Its time
            limit answers the caller, but cannot stop the thread.
        retries: of a durable task: how often it is tried again when it has failed (docs/queue.md).
        retry_delay, max_retry_delay: seconds before the first such try, at most; doubled with each
            further one, up to the second.
        result_ttl: seconds for which the record of a durable task is kept, at least 60.

    Raises:
        TypeError, ValueError: the mark makes no sense, e.g. on an `async def`.
    """
    if timeout is not None and not (
        isinstance(timeout, int | float) and 0 <= timeout < float("inf")
    ):
        raise ValueError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if type(retries) is not int or retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
    for what, seconds in (
        ("retry_delay", retry_delay),
        ("max_retry_delay", max_retry_delay),
        ("result_ttl", result_ttl),
    ):
        if not (isinstance(seconds, int | float) and 0 <= seconds < 1e9):
            raise ValueError(f"{what} must be a number of seconds, 0 or more, not {seconds!r}")
    if name is not None and (not isinstance(name, str) or not name or name.startswith(_RESERVED)):
        raise ValueError(f"{name!r} cannot be the name of a task")

    def mark(function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"@task marks functions, not {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"@task {function.__name__}: a plain function is needed")
        terms = retries, retry_delay, max_retry_delay, result_ttl
        setattr(function, _MARK, TaskMark(name, timeout, blocking, *terms))
        return function

    return mark if function is None else mark(function)


def find_tasks(modules: Iterable[ModuleType]) -> dict[str, TaskFunction]:
    """The marked functions of `modules`, by the name that peers call.

    Raises:
        ConfigError: a module has none, or two functions have the same name.
    """
    found: dict[str, TaskFunction] = {}
    problems = []
    for module in modules:
        marked = [f for f in vars(module).values() if isinstance(_mark_of(f), TaskMark)]
        if not marked:
            problems.append(f"module {module.__name__} has no function marked with @task")
        for function in marked:
            mark = _mark_of(function)
            candidate = mark.serve(function)
            other = found.setdefault(candidate.name, candidate)
            if other.function is not function:
                problems.append(
                    f"module {module.__name__}: task {candidate.name!r} is also defined"
                    f" in module {other.function.__module__}"
                )
    if problems:
        raise ConfigError(problems)
    return found


def _mark_of(value: Any) -> Any:
    try:
        return getattr(value, _MARK, None)
    except Exception:  # a lazy object of the user's module, e.g. flask.request
        return None


class _NoTask:
    """The current task of code that was called plainly, e.g. by a unit test."""

    id = None
    deadline = None
    peer = ""
    is_stopping = False
    attempt = deliveries = 1
    enqueued_at = None

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Nobody listens."""


_NO_TASK: CurrentTask = _NoTask()


def current_task() -> CurrentTask:
    """The task that runs this code; outside of one, a stand-in whose `progress` does nothing.

    A greenlet or thread that a task has started is outside: hand it what this gives to the task.
    """
    find = running_task.get()
    found = None if find is None else find()
    return _NO_TASK if found is None else found
