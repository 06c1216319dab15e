"""`TaskThreads`: the native threads of `blocking` tasks, which no look-up of a name must wait for.

A time limit answers the caller of such a task, but cannot end its thread. A thread that goes on after
that is stuck: it is counted as taken for as long as it is, and past a share of them the process asks
to be replaced.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

from gevent._hub_local import get_hub_if_exists
from gevent.lock import Semaphore
from gevent.threadpool import ThreadPool
from greenlet import greenlet

from ..patches.leftovers import end_if_forked
from ..tasks import running_task
from .stats import WorkerStats
from .task_greenlet import TaskGreenlet

MOST_STUCK: Final = 0.5  # of the threads, past which the process is of little use
LOOK_SECONDS: Final = 1.0  # between two looks of who waits at whether it waits in vain


class NoThread(Exception):
    """Every thread is stuck: there is nothing to wait for."""


class TaskThreads:
    """The threads of one worker process.

    They are started when they are needed: as each worker's own, they would take 250 kB.

    Args:
        size: how many there may be.
        hub: gevent's.

    Attributes:
        running: threads that are taken.
        stuck: those of them whose call has been answered without them.
        on_stuck: called with their number, when so many are stuck that this is little use.
    """

    def __init__(self, size: int, hub: Any, stats: WorkerStats) -> None:
        self.size = size
        self.running = self.stuck = 0
        self.on_stuck: Callable[[int], None] | None = None
        self._hub = hub
        self._stats = stats
        self._free: Any = Semaphore(size, hub)
        self._pool: Any = None

    @property
    def are_used_up(self) -> bool:
        """None of them will be free again, as far as one can tell."""
        return self.stuck >= self.size

    def run_task(self, greenlet: TaskGreenlet, positional: Any, keywords: Any) -> Any:
        """What the greenlet's task gives, as `run` does, and with the same exceptions."""
        execution = greenlet.current()
        function = greenlet.task.function

        def run() -> Any:
            running_task.set(lambda: execution)  # it may outlive the call, if that times out
            return function(*positional, **keywords)

        return self.run(run, greenlet.context.copy())

    def run(self, function: Callable[[], Any], context: Context) -> Any:
        """What `function()` gives in a thread; until one is free, the greenlet waits.

        Raises:
            NoThread: all are stuck.
            BaseException: what it has raised, or what ends the greenlet meanwhile.
        """
        self._wait_for_thread()
        job = _Job(function, context)
        try:
            if self._pool is None:
                self._pool = ThreadPool(self.size, self._hub)
            result = self._pool.spawn(job.run)
        except BaseException:  # no thread can be started
            self._free.release()
            raise
        self.running += 1
        self._tell()
        result.rawlink(lambda _: self._ended(job))
        try:
            result.get()
        except BaseException:
            if not job.has_ended:
                self._give_up(job)
            raise
        if job.error is not None:
            raise job.error
        return job.value

    def _wait_for_thread(self) -> None:
        while not self.are_used_up:
            if self._free.acquire(timeout=LOOK_SECONDS):
                return
        raise NoThread

    def _ended(self, job: _Job) -> None:
        """The thread is free again; in the hub."""
        job.has_ended = True
        self.running -= 1
        if job.is_stuck:
            self.stuck -= 1
        self._tell()
        self._free.release()

    def _give_up(self, job: _Job) -> None:
        """The call has ended, and its thread has not."""
        job.is_stuck = True
        self.stuck += 1
        self._tell()
        if self.on_stuck is not None and self.stuck >= self.size * MOST_STUCK:
            self.on_stuck(self.stuck)

    def _tell(self) -> None:
        self._stats.set_threads(self.running, self.stuck)


class _Job:
    """One run of a function in a thread.

    Attributes:
        value, error: what has come of it.
        has_ended: it has; known in the hub.
        is_stuck: its call has ended before it.
    """

    def __init__(self, function: Callable[[], Any], context: Context) -> None:
        self._function = function
        self._context = context
        self.value: Any = None
        self.error: BaseException | None = None
        self.has_ended = self.is_stuck = False

    def run(self) -> None:
        """In the thread: run it in a greenlet of its own, whose thread-locals end with it."""
        own = greenlet(self._run)
        own.gr_context = self._context
        if (hub := get_hub_if_exists()) is not None and not hub.dead:
            hub.parent = own  # an earlier call has made it, and was its parent
        own.switch()

    def _run(self) -> None:
        try:
            self.value = self._function()
        except BaseException as error:  # whatever it is: it must not end the thread
            self.error = error
        end_if_forked(self.error)
