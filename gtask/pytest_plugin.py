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
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from .errors import BadArguments, TaskFailed, UnknownTask
from .protocols.jsontext import dumps, loads
from .tasks import find_tasks, running_task

START_SECONDS = 20.0
STOP_SECONDS = 10.0


class StartedWorker:
    """A `gtask-worker` process that serves some task modules.

    Attributes:
        url: where it listens, for `TaskClient` and `AsyncTcpConnection`.
    """

    def __init__(self, folder: Path, modules: tuple[str, ...], options: dict[str, Any]) -> None:
        lines = ["[worker:Tasks]", "listen = text://127.0.0.1:0", f"tasks = {', '.join(modules)}"]
        lines += [f"{key} = {value}" for key, value in options.items()]
        config, self._log = folder / "worker.ini", folder / "worker.log"
        config.write_text("\n".join(lines) + "\n")
        paths = [path for path in (os.getcwd(), *sys.path) if path]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gtask", "-c", str(config)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.url = self._wait_ready()

    @property
    def log(self) -> str:
        """What it has logged and printed so far."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """Let it drain and end."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_ready(self) -> str:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ready = re.search(r"Tasks ready: (text://\S+?),? ", self.log)
            if ready:
                return ready[1]
            if self._process.poll() is not None:
                pytest.fail(f"gtask-worker ended with {self._process.returncode}:\n{self.log}")
            time.sleep(0.01)
        self.stop()
        pytest.fail(f"gtask-worker was not ready within {START_SECONDS:g} s:\n{self.log}")


@pytest.fixture
def gtask_worker(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., StartedWorker]]:
    """Start real workers: ``gtask_worker("myapp.tasks", count=2).url``.

    Arguments are names of task modules, and keys of a ``[worker:NAME]`` section. The worker is
    stopped when the test ends.
    """
    started: list[StartedWorker] = []

    def start(*modules: str, **options: Any) -> StartedWorker:
        worker = StartedWorker(tmp_path_factory.mktemp("gtask"), modules, options)
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


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
        task = self._tasks.get(function)
        if task is None:
            raise UnknownTask(f"unknown function {function!r}")
        carried = loads(dumps([] if args is None else args))
        if not isinstance(carried, dict | list):
            raise BadArguments("args must be an object or an array")
        positional, keywords = task.bind(carried)
        context = Context()
        context.run(running_task.set, lambda: _InlineTask(self.progress))
        try:
            result = context.run(task.function, *positional, **keywords)
        except Exception as error:
            data = {"type": type(error).__name__, "message": str(error)}
            raise TaskFailed(f"{type(error).__name__}: {error}", data) from error
        return loads(dumps(result))


class _InlineTask:
    """What `current_task` gives to a task that is called in place."""

    id = None
    deadline = None
    peer = "inline"

    def __init__(self, told: list[tuple[float, float | None, str]]) -> None:
        self._told = told

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        self._told.append((done, total, note))


@pytest.fixture
def gtask_inline() -> Callable[..., InlineTasks]:
    """Call tasks in the test's own process: ``gtask_inline("myapp.tasks").call("add", [1, 2])``."""

    def inline(*modules: str | ModuleType) -> InlineTasks:
        return InlineTasks(modules)

    return inline


__all__ = ["InlineTasks", "StartedWorker", "gtask_inline", "gtask_worker"]
