"""`connections`: the one question that the workers themselves have to answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from typing import Any

from .control import Client
from .slots import Process

PATIENCE_SECONDS = 1.0


class Survey:
    """Asks workers for their connections, and answers the operator when all have, or a second later.

    Args:
        client: who asks.
        processes: that are ready, and so listen to the signal.
        now: on the monotonic clock.
    """

    def __init__(self, client: Client, processes: Iterable[Process], now: float) -> None:
        self._client = client
        self._deadline = now + PATIENCE_SECONDS
        self._processes = {process.pid: process for process in processes}
        self._silent = set(self._processes)
        self._found: list[dict[str, Any]] = []
        for pid in self._silent:
            os.kill(pid, signal.SIGUSR2)

    def add(self, pid: int, connections: list[dict[str, Any]], is_last: bool) -> None:
        """A part of a worker's answer."""
        if pid not in self._silent:
            return
        process = self._processes[pid]
        where = {"service": process.service, "pid": pid, "id": process.worker_id}
        self._found += [where | connection for connection in connections]
        if is_last:
            self._silent.discard(pid)

    def finish(self, now: float) -> bool:
        """Answer when all workers have, or a second has passed; true when the survey is over."""
        if self._client.is_closed:
            return True
        if self._silent and now < self._deadline:
            return False
        silent = [
            {
                "service": self._processes[pid].service,
                "pid": pid,
                "id": self._processes[pid].worker_id,
            }
            for pid in sorted(self._silent)
        ]
        self._client.reply(ok=True, connections=self._found, silent=silent)
        return True
