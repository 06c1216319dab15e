"""pytest fixtures for users of gtask: a real worker on a free port, and tasks called in place.

Loaded by pytest by itself where gtask is installed (docs/testing.md).
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .config import Settings
from .errors import BadArguments, TaskFailed, UnknownTask
from .protocols.jsontext import dumps, loads
from .tasks import find_tasks, running_task

START_SECONDS = 20.0
STOP_SECONDS = 2.0  # for the tasks that still run
WHOLE_TREE = {field.name for field in fields(Settings)} - {"services", "file"}
CUT_SECONDS = 2.0  # for the processes, once their tasks are cut off

# Ends the worker when its standard input does, hence when pytest does, however it ends. The kernel
# could do so by itself (PR_SET_PDEATHSIG), but would when the thread ends that has started it.
GUARD = """
import os, signal, sys
worker = os.pidfd_open(int(sys.argv[1]))
print(flush=True)
if not sys.stdin.buffer.read():
    signal.pidfd_send_signal(worker, signal.SIGKILL)
"""


class StartedWorker:
    """A `gtask-worker` process that serves some task modules.

    Attributes:
        url: where it listens, for `TaskClient` and `AsyncTcpConnection`.
    """

    def __init__(self, folder: Path, modules: tuple[str, ...], options: dict[str, Any]) -> None:
        config, self._log = folder / "worker.ini", folder / "worker.log"
        config.write_text(_section(modules, options))
        paths = [path for path in (os.getcwd(), *sys.path) if path]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gtask", "-c", str(config)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops it
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", GUARD, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._guard.stdout is not None
        self._guard.stdout.read(1)  # until it is on its guard
        self.url = self._wait_ready()

    @property
    def log(self) -> str:
        """What it has logged and printed so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Let it drain and end; a task that takes too long is cut off."""
        self.begin_to_stop()
        self.finish_stopping()

    def begin_to_stop(self) -> None:
        """Tell it to."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def finish_stopping(self) -> None:
        """Wait until it has ended, and see that it does."""
        try:
            if not self._has_ended(STOP_SECONDS):
                self._process.send_signal(signal.SIGINT)
            if not self._has_ended(CUT_SECONDS):
                self._process.kill()  # its workers end with it
                self._process.wait()
        finally:
            if self._guard.poll() is None:
                self._guard.communicate(b"at ease")

    def _has_ended(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _wait_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ready = re.search(r"Tasks ready: (\S+?),? ", self.log + " ")
            if ready:
                return ready[1]
            if self._process.poll() is not None:
                self.finish_stopping()
                pytest.fail(f"gtask-worker ended with {self._process.returncode}:\n{self.log}")
            time.sleep(0.01)
        self.stop()
        pytest.fail(f"gtask-worker was not ready within {START_SECONDS:g} s:\n{self.log}")


def _section(modules: tuple[str, ...], options: dict[str, Any]) -> str:
    """The configuration, of keys with the values that Python has for them."""
    tasks = [*modules, *_as_list(options.get("tasks", ()))]
    keys = {"listen": "text://127.0.0.1:0", **options, "tasks": tasks}
    whole = [key for key in keys if key in WHOLE_TREE]
    service = [key for key in keys if key not in WHOLE_TREE]
    lines = ["[gtask]", *(_line(key, keys[key]) for key in whole)]
    lines += ["[worker:Tasks]", *(_line(key, keys[key]) for key in service)]
    return "\n".join(lines) + "\n"


def _line(key: str, value: Any) -> str:
    if key == "socket_mode" and isinstance(value, int):
        return f"{key} = {value:o}"
    return f"{key} = {_as_text(value)}"


def _as_list(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value)


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(map(_as_text, value))
    if isinstance(value, float):
        return f"{value:.9f}"
    return "" if value is None else str(value).replace("\n", "\n  ")


@pytest.fixture
def gtask_worker(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., StartedWorker]]:
    """Start real workers: ``gtask_worker("myapp.tasks", count=2).url``.

    Arguments are names of task modules, and keys of a ``[worker:NAME]`` section or of ``[gtask]``.
    The worker is stopped when the test ends.
    """
    started: list[StartedWorker] = []

    def start(*modules: str, **options: Any) -> StartedWorker:
        worker = StartedWorker(tmp_path_factory.mktemp("gtask"), modules, options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.begin_to_stop()
    for worker in started:
        worker.finish_stopping()


class InlineTasks:
    """Calls tasks in this process, but with arguments and results as JSON would carry them.

    Attributes:
        progress: what the tasks have told of their progress, as (done, total, note).
    """

    def __init__(self, modules: tuple[str | ModuleType, ...]) -> None:
        loaded = [import_module(one) if isinstance(one, str) else one for one in modules]
        self._tasks = find_tasks(loaded)
        self.progress: list[tuple[float, float | None, str]] = []

    def call(self, function: str, args: dict[str, Any] | list[Any] | None = None) -> Any:
        """The task's result, after a round trip through JSON.

        Raises:
            TaskError: what a caller would be told: UnknownTask, BadArguments, InternalError for
                what is not JSON, and TaskFailed, with the task's exception as its cause.
        """
        return self._call(function, args, _InlineTask(self.progress))

    def run(self, function: str, args: Any, dealt: Any) -> Any:
        """The same for a durable task, which knows more of itself."""
        current = _InlineTask(self.progress)
        current.id = dealt.id
        current.attempt, current.deliveries = dealt.attempt, dealt.deliveries
        current.enqueued_at = dealt.enqueued_at / 1000
        return self._call(function, args, current)

    def _call(self, function: str, args: Any, current: _InlineTask) -> Any:
        task = self._tasks.get(function)
        if task is None:
            raise UnknownTask(f"unknown function {function!r}")
        carried = loads(dumps([] if args is None else args))
        if not isinstance(carried, dict | list):
            raise BadArguments("args must be an object or an array")
        positional, keywords = task.bind(carried)
        context = Context()
        context.run(running_task.set, lambda: current)
        try:
            result = context.run(task.function, *positional, **keywords)
        except Exception as error:
            data = {"type": type(error).__name__, "message": str(error)}
            raise TaskFailed(f"{type(error).__name__}: {error}", data) from error
        return loads(dumps(result))


class _InlineTask:
    """What `current_task` gives to a task that is called in place."""

    id: str | None = None
    deadline = None
    peer = "inline"
    is_stopping = False
    attempt = deliveries = 1
    enqueued_at: float | None = None

    def __init__(self, told: list[tuple[float, float | None, str]]) -> None:
        self._told = told

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        self._told.append((done, total, note))

    def adopt(self, call: Any) -> None:
        """Nobody cancels a task that is called in place."""


@pytest.fixture
def gtask_inline() -> Callable[..., InlineTasks]:
    """Call tasks in the test's own process: ``gtask_inline("myapp.tasks").call("add", [1, 2])``."""

    def inline(*modules: str | ModuleType) -> InlineTasks:
        return InlineTasks(modules)

    return inline


@pytest.fixture
def gtask_queue(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """A durable queue without workers: ``gtask_queue("myapp.tasks")`` has a `url` and `run()`.

    What the code under test puts there with `Queue` is kept in a real store, in a folder of the
    test's own; `run()` runs what is due, in the test's process.
    """

    def queue(*modules: str | ModuleType) -> Any:
        from .queue.inline import InlineQueue
        from .queue.records import Terms

        inline = InlineTasks(modules)
        terms = {
            name: Terms.from_seconds(
                [task.retries, task.retry_delay, task.max_retry_delay, task.result_ttl, 0]
            )
            for name, task in inline._tasks.items()
        }
        url = f"sqlite://{tmp_path_factory.mktemp('gtask')}/queue.db"
        return InlineQueue(url, terms, inline.run)

    return queue


__all__ = ["InlineTasks", "StartedWorker", "gtask_inline", "gtask_queue", "gtask_worker"]
