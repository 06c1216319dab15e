"""The task that runs this code, for those that know nothing else of tasks.

A task's own calls must end with it: so `gtask.client` asks here, and `gtask.server` tells.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol


class CurrentTask(Protocol):
    """What a task can know of its own call, and tell its caller.

    Attributes:
        id: the id its caller gave, or None.
        deadline: when its time limit passes, in `time.monotonic` seconds, or None.
        peer: the caller's address, e.g. ``127.0.0.1:51234``.
        is_stopping: the process is to end: a long task may stop where it can go on later.
        attempt: of a durable task: starts that were not interrupted, this one included; else 1.
        deliveries: of a durable task: all starts, this one included; else 1.
        enqueued_at: when a durable task was put, in seconds of the unix clock; else None.
    """

    @property
    def id(self) -> str | int | None: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def peer(self) -> str: ...

    @property
    def is_stopping(self) -> bool: ...

    @property
    def attempt(self) -> int: ...

    @property
    def deliveries(self) -> int: ...

    @property
    def enqueued_at(self) -> float | None: ...

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller how far the task is; costs nothing when the caller did not ask."""
        ...


class Adopter(Protocol):
    """What the client needs of the task that makes a call."""

    @property
    def deadline(self) -> float | None: ...

    def adopt(self, call: Any) -> None:
        """Cancel the call (`call.cancel()`) when this task is cancelled or times out."""
        ...


running_task: ContextVar[Callable[[], Any] | None] = ContextVar("gtask.running_task", default=None)
"""Gives what is a `CurrentTask` and an `Adopter`, or None in what the task has started."""
