"""`Engine`: what all connections of one worker process share to run its tasks."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any, Final

from gevent import monkey

from ..binding import TaskFunction
from ..net.reactor import Reactor
from .execution import Execution
from .limits import Limits
from .ready import ReadyQueue
from .reports import Reports
from .stats import WorkerStats
from .task_greenlet import TaskGreenlet
from .threads import TaskThreads
from .turns import MAX_PENDING_BYTES, Turns

MIN_THREADS: Final = 10
MAX_THREADS: Final = 100

# The patched one tells greenlets apart, not threads.
native_thread_id: Final[Any] = monkey.get_original("_thread", "get_ident")


class Engine:
    """The parts that take a call from its frame to its reply.

    Args:
        tasks: what may be called, by name; they are numbered here, for the scoreboard.
        concurrency: tasks at once; others wait.
        task_timeout: seconds a task may take by default; 0 is no limit.

    Attributes:
        connections: all that are open.
        is_draining: peers are to go.
        queues: the stores of the service, where it has some.
        thread: the native thread that all of this runs in.
    """

    def __init__(
        self,
        tasks: dict[str, TaskFunction],
        reactor: Reactor,
        stats: WorkerStats,
        *,
        concurrency: int,
        task_timeout: float,
        max_frame_bytes: int,
        max_batch: int,
        max_send_buffer_bytes: int,
        max_pending_bytes: int = MAX_PENDING_BYTES,
    ) -> None:
        self.tasks = tasks
        for number, task in enumerate(tasks.values(), 1):
            task.number = number
        self.reactor = reactor
        self.stats = stats
        self.task_timeout = task_timeout
        self.max_frame_bytes = max_frame_bytes
        self.max_batch = max_batch
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.max_pending_bytes = max_pending_bytes
        self.turns = Turns(concurrency, reactor.loop, stats, max_pending_bytes)
        self.limits = Limits(reactor.loop, self.turns, stats)
        self.ready = ReadyQueue(reactor.hub, task_timeout, stats)
        size = max(MIN_THREADS, min(concurrency, MAX_THREADS))
        self.threads = TaskThreads(size, reactor.hub, stats)
        self.thread: int = native_thread_id()
        self.reports = Reports(reactor.loop)
        self.connections: set[Any] = set()
        self.is_draining = False
        self.queues: Any = None

    def start(
        self,
        call: Execution,
        run: Callable[[TaskGreenlet], object],
        let_run: Callable[[TaskGreenlet], object],
    ) -> None:
        """Start a call that there is a turn for now; hub only.

        Args:
            run: what the call's greenlet does.
            let_run: called with that greenlet, if the call has blocked.
        """
        greenlet = self.ready.greenlet()
        greenlet.connection = call.connection
        greenlet.execution = call
        greenlet.task = call.task
        now = greenlet.started = monotonic()
        call.set_limit(now, self.task_timeout)
        self.stats.enter(now)
        greenlet.switch(run)
        if not greenlet.is_parked:
            let_run(greenlet)
        self.stats.back_in_loop()
