"""`Queue`: puts durable tasks, from any gevent program, plain script or thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from types import TracebackType
from typing import Any

import gevent

from ..client.client import TaskClient
from ..errors import (
    Draining,
    Overloaded,
    StoreUnavailable,
    TaskError,
    TaskTimedOut,
    WorkerLost,
)
from ..store_address import StoreAddress, is_store, parse_store
from .direct import BUSY, ask_directly
from .job import Callback, Job
from .records import OPTIONS, new_id

PUT_SECONDS = 15.0
PAUSE_SECONDS = 0.05  # between two tries to reach the store
MANY = 500  # tasks that are put together
LASTING = ("disk_full", "read_only", "version", "corrupt")  # reasons that pass by no waiting
_UNREACHABLE = (WorkerLost, TaskTimedOut, Draining, Overloaded, StoreUnavailable)

Function = str | Callable[..., Any]


class Queue:
    """A queue of durable tasks; one serves a whole program.

        mail = Queue("sqlite:///var/lib/gtask/mail.db")
        job = mail.put("send_mail", {"to": "b@x"})
        job.get(timeout=30)

    A store on this machine is asked through its process, and used directly while there is none; so a
    put works while no worker runs.

    Args:
        url: ``sqlite:///PATH?queue=NAME``, or ``text://host:port`` of services that have a store,
            one or several.
        put_timeout: seconds for which a store that cannot be reached is tried again.
        store_mode: of the files, where this program is the first to need them.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self,
        url: str | Iterable[str],
        *,
        put_timeout: float = PUT_SECONDS,
        store_mode: int = 0o600,
    ) -> None:
        self._store: StoreAddress | None = None
        if isinstance(url, str) and is_store(url):
            self._store = parse_store(url)
            url = f"text+unix://{self._store.socket_path}"
        self._client = TaskClient(url, patience=0.0, max_pending=1_000_000)
        self._put_timeout = put_timeout
        self._mode = store_mode

    def __repr__(self) -> str:
        return f"<Queue {self._store or self._client!r}>"

    # -- tasks --------------------------------------------------------------------------------

    def put(
        self,
        function: Function,
        args: dict[str, Any] | list[Any] | tuple[Any, ...] | None = None,
        *,
        delay: float = 0,
        key: str | None = None,
        retries: int | None = None,
        timeout: float | None = None,
        expires: float | None = None,
        priority: str = "normal",
        id: str | None = None,
        result_ttl: float | None = None,
        on_result: Callback = None,
        on_error: Callback = None,
        on_progress: Callback = None,
    ) -> Job:
        """Put a task; when this returns, it is not lost by the end of any process.

        Args:
            function: a task's name, or the function itself.
            args: keyword arguments (dict) or positional ones.
            delay: seconds until it may begin.
            key: while a task with this key is not final, that one is returned.
            retries, timeout, result_ttl: instead of the function's own.
            expires: seconds after which it does not begin any more.
            priority: "high", "normal" or "low".
            id: of the caller's choice: a put repeated with it is the same task.
            on_result, on_error, on_progress: as those of `TaskClient.call`.

        Raises:
            QueueFull, StoreUnavailable: it was not taken; `StoreUnavailable` may not know whether.
            BadArguments: an option makes no sense.
            TypeError, ValueError: the arguments are not JSON.
        """
        options = {
            "delay": delay or None,
            "key": key,
            "retries": retries,
            "timeout": timeout,
            "expires": expires,
            "priority": None if priority == "normal" else priority,
            "id": id,
            "result_ttl": result_ttl,
        }
        answer = self.ask("gtask.put", _task(function, args, options))
        job = Job(self, answer["id"], answer["created"])
        if on_result is not None or on_error is not None or on_progress is not None:
            job.link(on_result, on_error, on_progress)
        return job

    def put_many(self, tasks: Iterable[dict[str, Any]]) -> list[Job | TaskError]:
        """Put many at a time, each as if it were put alone; faster than one after the other.

        Args:
            tasks: each a dict with ``function``, perhaps ``args``, and options of `put`.

        Returns:
            A `Job` for each, or the error for one that was refused.

        Raises:
            StoreUnavailable: some were not taken, or it is not known; the same ids may be put again.
        """
        made = [_task_of(task) for task in tasks]
        jobs: list[Job | TaskError] = []
        for start in range(0, len(made), MANY):
            answers = self.ask("gtask.put_many", {"tasks": made[start : start + MANY]})
            jobs += [self._job(answer) for answer in answers]
        return jobs

    def _job(self, answer: dict[str, Any]) -> Job | TaskError:
        if "error" in answer:
            return TaskError.from_dict(answer["error"])
        return Job(self, answer["id"], answer["created"])

    def job(self, id: str) -> Job:
        """The task of that id, whoever has put it."""
        return Job(self, id)

    # -- the queue ----------------------------------------------------------------------------

    def counts(self) -> dict[str, Any]:
        """What this queue holds (docs/protocol.md)."""
        counts: dict[str, Any] = self.ask("gtask.counts", {})
        if self._store is not None:
            return dict(counts.get(self._store.queue, {}))
        return counts

    def pause(self) -> None:
        """Have no task of this queue begin until `resume`; a store's URL is needed."""
        self.ask("store.pause", {})

    def resume(self) -> None:
        """Undo `pause`."""
        self.ask("store.resume", {})

    def close(self) -> None:
        """Close the connections; what was put stays."""
        self._client.close()

    def __enter__(self) -> Queue:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # -- for jobs and programs ----------------------------------------------------------------

    def ask(self, function: str, params: dict[str, Any], wait: float = 0.0) -> Any:
        """Ask the store, and ask again while it cannot be reached.

        Args:
            wait: seconds for which the store may keep the question.

        Raises:
            TaskError: the answer is one, or `StoreUnavailable`.
        """
        deadline = monotonic() + max(self._put_timeout, wait)
        accepted = "no"
        while True:
            try:
                return self._ask_once(function, params, wait, deadline)
            except _UNREACHABLE as error:
                data = error.data if isinstance(error.data, dict) else {}
                if data.get("reason") in LASTING:
                    raise
                if data.get("sent", True) is not False and data.get("accepted") != "no":
                    accepted = "unknown"
                if monotonic() >= deadline:
                    reason = data.get("reason", "unreachable")
                    raise StoreUnavailable(
                        f"{self!r}: {error.message}", {"reason": reason, "accepted": accepted}
                    ) from error
            gevent.sleep(PAUSE_SECONDS)
            self._client.try_again()

    def _ask_once(self, function: str, params: dict[str, Any], wait: float, deadline: float) -> Any:
        if self._store is not None:
            params = {**params, "queue": self._store.queue}
        if wait:
            params["wait"] = wait
        limit = max(0.1, deadline - monotonic(), wait + 1)
        try:
            return self._client.call(function, params, timeout=limit).get()
        except WorkerLost:
            if self._store is None:
                raise
            answer = self._ask_directly(self._store.path, function, params)
            if answer is BUSY:
                raise
        if isinstance(answer, TaskError):
            raise answer
        return answer

    def _ask_directly(self, path: str, function: str, params: dict[str, Any]) -> Any:
        """Nobody listens: use the file, in a native thread, so that the loop does not wait for the disk."""
        pool = gevent.get_hub().threadpool
        return pool.apply(ask_directly, (path, self._mode, function, params))

    def watch(self, params: dict[str, Any], **callbacks: Any) -> None:
        """Have `gtask.result` called, and its outcome told to callbacks."""
        if self._store is not None:
            params = {**params, "queue": self._store.queue}
        self._client.try_again()
        self._client.call("gtask.result", params, timeout=params["wait"] + 30, **callbacks)


def _task(function: Function, args: Any, options: dict[str, Any]) -> dict[str, Any]:
    """A task as `gtask.put` takes it; with an id in any case, so that it may be put again."""
    name = function
    if not isinstance(function, str):
        mark = getattr(function, "__gtask__", None)
        if mark is None:
            raise TypeError(f"{function!r} is no task")
        name = mark.name or function.__name__
    if args is not None and not isinstance(args, dict | list | tuple):
        raise TypeError(f"args must be a dict or a list, not {type(args).__name__}")
    given = {key: value for key, value in options.items() if value is not None}
    given.setdefault("id", new_id())
    return {"function": name, "args": [] if args is None else args, "options": given}


def _task_of(task: dict[str, Any]) -> dict[str, Any]:
    if unknown := task.keys() - {"function", "args", *OPTIONS}:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    options = {key: value for key, value in task.items() if key not in ("function", "args")}
    return _task(task["function"], task.get("args"), options)
