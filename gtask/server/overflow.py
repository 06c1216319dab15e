"""`Overflow`: what becomes of connections while all processes of a service are full.

They wait in the listen queue for the first that has a turn again, and mostly that is best. But a
health check must not wait, nor may a caller take us for dead. So when somebody has waited there for
a while, no process has room, and none has accepted anybody, the one of them with the least to do
takes some: it answers what needs no turn, and calls wait for theirs.
"""

from __future__ import annotations

import select as flags
import socket
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Any

from gevent import monkey

from .stats import WorkerStats

LOOK_SECONDS = 0.05
QUIET_SECONDS = 1.0  # without a heartbeat, a process with room is as good as full
LOOKS = 10  # in which the whole queue is to be taken, however long it is
TCP_INFO_BYTES = 32
UNACKED = 24  # where tcp_info(7) says how many wait in a listen queue


class Overflow:
    """Looks at the listen queue while this process is full.

    Args:
        loop: gevent's.
        listener: the listening socket.
        stats: our siblings' counts.
        concurrency: turns of each process.
        accept_one: accepts one connection; False if there is none.
        is_full: this process has no turn left, but may have one more connection.
    """

    def __init__(
        self,
        loop: Any,
        listener: Any,
        stats: WorkerStats,
        concurrency: int,
        accept_one: Callable[[], bool],
        is_full: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._stats = stats
        self._concurrency = concurrency
        self._accept_one = accept_one
        self._is_full = is_full
        self._timer: Any = None
        self._accepted = -1  # by all, at the last look, if somebody waited then

    def start(self) -> None:
        """Look from now on, until a look finds that this process is not full."""
        if self._timer is None:
            self._timer = self._loop.timer(LOOK_SECONDS)
            self._timer.start(self.look, update=True)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        self._accepted = -1

    def look(self) -> None:
        """Take connections that nobody else will take soon."""
        if not self._is_full():
            self.stop()
            return
        self._take_those_who_wait()
        if self._timer is not None:
            self._timer.start(self.look, update=True)

    def _take_those_who_wait(self) -> None:
        before, self._accepted = self._accepted, -1
        if not self._somebody_waits():
            return
        accepted = self._stats.accepted_by_all()
        quiet_since = monotonic() - QUIET_SECONDS
        if accepted == before and self._stats.is_next_to_overflow(self._concurrency, quiet_since):
            for _ in range(self._fair_share()):
                if not self._is_full() or not self._accept_one():
                    break
            accepted = self._stats.accepted_by_all()
        self._accepted = accepted

    def _somebody_waits(self) -> bool:
        ready = monkey.get_original("select", "poll")()
        ready.register(self._listener.fileno(), flags.POLLIN)
        return bool(ready.poll(0))

    def _fair_share(self) -> int:
        """How many to take now, so that the last in the queue waits for about a second."""
        if self._listener.family == socket.AF_UNIX:
            return 1  # it does not tell
        info = self._listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
        waiting = int.from_bytes(info[UNACKED : UNACKED + 4], "little")
        return max(1, ceil(waiting / LOOKS))
