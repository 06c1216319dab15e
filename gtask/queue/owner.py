"""`Owner`: one worker process as the owner of a store sees it, and what it holds."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from math import inf
from time import monotonic
from typing import Any

from .line import Line
from .owners import open_pidfd
from .records import Identity, Terms
from .states import Event
from .wire import notification_line

OVERDUE_SECONDS = 15.0  # past its time limit, after which a run's process is killed
READ = 1


class Run:
    """A start of a task.

    Attributes:
        overdue_at: when its process is killed, in seconds of the monotonic clock.
    """

    def __init__(
        self,
        seq: int,
        id: str,
        function: str,
        timeout_ms: int,
        is_suspect: bool,
        spent: float = 0.0,
    ) -> None:
        self.seq = seq
        self.id = id
        self.function = function
        self.is_suspect = is_suspect
        left = max(0.0, timeout_ms / 1000 - spent)
        self.overdue_at = monotonic() + left + OVERDUE_SECONDS if timeout_ms else inf


class Owner:
    """A process, from its first word to its end.

    Args:
        number: the store's for it.
        died: called with it, in the hub, when the process has ended.

    Attributes:
        line: its connection; None while there is none.
        capacity: how many tasks it can hold.
        runs: what it holds, by fence.
        loss: what happens to its tasks if it dies.
        lease_until: when it is given up, on the monotonic clock, while it cannot be watched.
        is_claiming: a claim for it is being written down.
        is_exhausted: there was less for it than it could take, and nothing is new since.
        is_over: it has died.
    """

    def __init__(
        self, number: int, identity: Identity, loop: Any, died: Callable[[Owner], None]
    ) -> None:
        self.number = number
        self.identity = identity
        self.line: Line | None = None
        self.queue = ""
        self.capacity = 0
        self.functions: dict[str, Terms] = {}
        self.runs: dict[int, Run] = {}
        self.loss = Event.LOST
        self.lease_until: float | None = None
        self.is_claiming = self.is_exhausted = self.is_over = False
        self._loop = loop
        self._died = died
        self._pidfd = -1
        self._watcher: Any = None
        self._ended: list[int] = []
        self._refused: list[int] = []

    @property
    def free(self) -> int:
        """How many more tasks it can take."""
        return self.capacity - len(self.runs)

    @property
    def takes(self) -> bool:
        """It can be dealt to."""
        return (
            self.free > 0
            and self.line is not None
            and not (self.is_claiming or self.is_exhausted or self.is_over)
        )

    @property
    def has_suspect(self) -> bool:
        """It holds a task that was lost twice."""
        return any(run.is_suspect for run in self.runs.values())

    @property
    def is_watched(self) -> bool:
        """Its end will be seen."""
        return self._watcher is not None

    def watch(self) -> bool:
        """Have `died` called at its end; false if it cannot be watched from here."""
        if self._watcher is None and not self.is_over:
            self._pidfd = open_pidfd(self.identity)
            if self._pidfd >= 0:
                self._watcher = self._loop.io(self._pidfd, READ)
                self._watcher.start(self._died, self)
        return self._watcher is not None

    def kill(self) -> None:
        """End it; its tasks are freed when it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def overdue(self, now: float) -> list[int]:
        """The fences of runs that are far past their time limit."""
        return [fence for fence, run in self.runs.items() if now >= run.overdue_at]

    def keep(self, fences: frozenset[int]) -> None:
        """It holds nothing else."""
        self.runs = {fence: run for fence, run in self.runs.items() if fence in fences}

    def tell_ended(self, fence: int, is_accepted: bool) -> None:
        """An end is written down, or is refused for its fence; told with others of this turn."""
        if self.line is None:
            return
        if not self._ended and not self._refused:
            self._loop.run_callback(self._tell_ends)
        (self._ended if is_accepted else self._refused).append(fence)

    def _tell_ends(self) -> None:
        ended, self._ended = self._ended, []
        refused, self._refused = self._refused, []
        if self.line is not None:
            self.line.send(notification_line("store.ended", fences=ended, refused=refused))

    def close(self) -> None:
        """Watch it no more."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
