"""`Job`: a task that was put, as its caller sees it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Protocol

import gevent

from ..errors import TaskError, UnknownJob

WAIT_SECONDS = 30.0  # that one question waits for the end of a task, before it is asked again
POLL_SECONDS = 0.1  # between two questions where nobody can wait for us
AGAIN_SECONDS = 0.25

Callback = Callable[..., Any] | None


class Asks(Protocol):
    """The queue, as its jobs need it."""

    def ask(self, function: str, params: dict[str, Any], wait: float = 0.0) -> Any:
        """Ask the store, and ask again while it cannot be reached."""

    def watch(self, params: dict[str, Any], **callbacks: Any) -> None:
        """Have `gtask.result` called, and its outcome told to callbacks."""


class Job:
    """A task in a store; any number of these may stand for the same one.

    Attributes:
        id: the task's.
        created: False if `put` has found it, by its id or its key.
    """

    __slots__ = ("_queue", "created", "id")

    def __init__(self, queue: Asks, id: str, created: bool = False) -> None:
        self._queue = queue
        self.id = id
        self.created = created

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result; other greenlets go on meanwhile.

        Args:
            timeout: seconds to wait; the task itself goes on after that.

        Raises:
            TaskError: it has failed for good; see `gtask.errors`. `UnknownJob`: its record was
                forgotten, or never was.
            TimeoutError: it has no final state after `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            left = WAIT_SECONDS if deadline is None else max(0.0, deadline - monotonic())
            answer = self._queue.ask("gtask.result", {"id": self.id}, wait=min(left, WAIT_SECONDS))
            if "error" in answer:
                raise TaskError.from_dict(answer["error"])
            if "result" in answer:
                return answer["result"]
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"task {self.id} is {answer['state']} after {timeout:g} s")
            gevent.sleep(min(POLL_SECONDS, left))

    def state(self) -> str:
        """The name of its state."""
        return str(self.info()["state"])

    def info(self) -> dict[str, Any]:
        """Its record, as `gtask.state` tells it; times are seconds of the unix clock."""
        info: dict[str, Any] = self._queue.ask("gtask.state", {"id": self.id})
        return info

    def cancel(self) -> bool:
        """End it, or ask for its end if it runs; False if it had ended."""
        return bool(self._queue.ask("gtask.cancel_job", {"id": self.id})["cancel_requested"])

    def link(
        self, on_result: Callback = None, on_error: Callback = None, on_progress: Callback = None
    ) -> None:
        """Have its end told to one of the first two, and its progress to the third.

        They run in greenlets of their own, as those of `TaskClient`, and end with this process.
        """
        params = {"id": self.id, "wait": 300}

        def answered(answer: dict[str, Any]) -> None:
            if "error" in answer:
                if on_error is not None:
                    on_error(TaskError.from_dict(answer["error"]))
            elif "result" in answer:
                if on_result is not None:
                    on_result(answer["result"])
            else:
                again()

        def failed(error: TaskError) -> None:
            if isinstance(error, UnknownJob):
                if on_error is not None:
                    on_error(error)
            else:  # the store cannot be reached now
                gevent.sleep(AGAIN_SECONDS)
                again()

        def again() -> None:
            self._queue.watch(params, on_result=answered, on_error=failed, on_progress=on_progress)

        again()
