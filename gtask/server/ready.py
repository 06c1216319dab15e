"""`ReadyQueue`: the connections that have something to do, and the greenlets that do it.

Where many connections have something at a time, the hub reads them first, and one greenlet serves
them all, as long as no task blocks. What is behind a task that blocks goes on in the next greenlet.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..net.poller import PolledStream, Poller
from ..net.reactor import Reactor
from .stats import WorkerStats
from .task_greenlet import TaskGreenlet

SERVE_SECONDS = 0.005  # what is served at a time, before the loop looks at all else


class ReadyStream(PolledStream):
    """A stream with an inbox; what subclasses do with that, they say below.

    Attributes:
        corked_since: when its replies began to be collected; 0.0: they go out one by one.
        last_active: when something last came or a drain was told of. Both on the monotonic clock.
    """

    __slots__ = ("corked_since", "last_active")

    def __init__(self, reactor: Reactor, poller: Poller) -> None:
        PolledStream.__init__(self, reactor, poller)
        self.corked_since = 0.0
        self.last_active = monotonic()

    def work(self, greenlet: TaskGreenlet) -> bool:
        """Have the inbox worked off; False if a task has blocked, and the hub went on."""
        raise NotImplementedError

    def go_on_without(self, greenlet: TaskGreenlet) -> None:
        """A task has blocked in the greenlet; hub only."""
        raise NotImplementedError

    def end_work(self) -> None:
        """Send what is to be sent, and see how to go on."""
        raise NotImplementedError


class ReadyQueue:
    """The queue of one worker process.

    Args:
        hub: gevent's.
        task_timeout: seconds a task may take by default; 0 is no limit.
    """

    def __init__(self, hub: Any, task_timeout: float, stats: WorkerStats) -> None:
        self._hub = hub
        self._task_timeout = task_timeout
        self._stats = stats
        self._parked: list[TaskGreenlet] = []
        self._ready: list[ReadyStream] = []  # connections, in the order in which something came
        self._taken: list[ReadyStream] = []  # those of them that are worked off, the next last
        self._until = 0.0  # when the time is up for those
        self._timer: Any = None  # for the rest

    def put(self, connection: ReadyStream) -> None:
        """Have a connection's inbox worked off by the next `work_off`."""
        self._ready.append(connection)

    def postpone(self, connection: ReadyStream) -> None:
        """The same, when the loop has looked at all else."""
        self._ready.append(connection)
        self._work_off_later()

    def work_off(self) -> None:
        """Serve those that are ready, one greenlet all that do not block; hub only."""
        taken = self._taken
        self._ready.reverse()
        taken[:0] = self._ready
        self._ready.clear()
        self._until = monotonic() + SERVE_SECONDS
        try:
            while taken:
                self._run()
                if taken and monotonic() > self._until:
                    break
        finally:
            if taken:
                self._work_off_later()
            self._stats.back_in_loop()

    def greenlet(self) -> TaskGreenlet:
        """A greenlet for what comes next."""
        greenlet = (
            self._parked.pop()
            if self._parked
            else TaskGreenlet(self._hub, self._parked, self._task_timeout)
        )
        greenlet.is_parked = False
        return greenlet

    def close(self) -> None:
        """Serve nothing more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()

    def _run(self) -> None:
        greenlet = self.greenlet()
        greenlet.switch(self._serve)
        connection: ReadyStream = greenlet.connection
        if not greenlet.is_parked:
            connection.go_on_without(greenlet)
        elif connection.corked_since:  # it was killed between two calls
            connection.end_work()

    def _serve(self, greenlet: TaskGreenlet) -> None:
        """In a greenlet: one connection after the other, until a call blocks or the time is up."""
        taken = self._taken
        while taken:
            connection = taken.pop()
            if not connection.work(greenlet) or greenlet.is_spent:
                return
            if connection.last_active > self._until:
                return

    def _work_off_later(self) -> None:
        # A timer, as gevent runs up to 50 callbacks, also those that callbacks ask for, before the
        # loop turns.
        if self._timer is None:
            self._timer = self._hub.loop.timer(0)
        self._timer.start(self.work_off)
