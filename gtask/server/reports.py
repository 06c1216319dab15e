"""`Reports`: progress that tasks in native threads tell of, on its way to the loop.

A thread can report faster than the loop takes it, e.g. while a task has the CPU; so only the newest
reports are kept.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

MAX_REPORTS = 100  # that wait for the loop


class ReportingConnection(Protocol):
    """Whom a report is for."""

    def send_progress(self, line: bytes) -> None:
        """Send it; in the loop's thread."""


class Reports:
    """Those of one process.

    Args:
        loop: gevent's.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._waiting: deque[tuple[ReportingConnection, bytes]] = deque(maxlen=MAX_REPORTS)
        self._is_asked = False  # the loop is to come

    def send_from_thread(self, connection: ReportingConnection, line: bytes) -> None:
        """Have the loop send it; called in any native thread."""
        self._waiting.append((connection, line))
        if not self._is_asked:
            self._is_asked = True
            self._loop.run_callback_threadsafe(self._send)

    def _send(self) -> None:
        self._is_asked = False  # first: what is put there from now on asks again
        waiting = self._waiting
        for _ in range(len(waiting)):
            connection, line = waiting.popleft()
            connection.send_progress(line)
