"""`connections`: the one question that the workers themselves have to answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .control import Client
from .messages import Connections
from .slots import Process

PATIENCE_SECONDS = 1.0  # without a word of a worker that has not answered completely


class Survey:
    """Collects what workers say of their connections, and answers the operator when all have.

    A worker tells them in parts, at the pace at which its messages are taken. One that has said
    nothing for a second is waited for no longer.

    Args:
        client: who asks.
        processes: who are asked.
        now: on the monotonic clock, in seconds.
    """

    def __init__(self, client: Client, processes: Iterable[Process], now: float) -> None:
        self._client = client
        self._processes = {process.pid: process for process in processes}
        self._heard_at = dict.fromkeys(self._processes, now)  # of those who have not said all
        self._found: dict[int, list[dict[str, Any]]] = {}

    def add(self, part: Connections, now: float) -> None:
        """A part of a worker's answer; the first one begins it."""
        pid = part.pid
        if pid not in self._heard_at or not (part.first or pid in self._found):
            return  # nobody that we asked, or the rest of what it told somebody else
        process = self._processes[pid]
        where = {"service": process.service, "pid": pid, "id": process.worker_id}
        found = [] if part.first else self._found[pid]
        self._found[pid] = found + [{**where, **each, **where} for each in part.connections]
        self._heard_at[pid] = now
        if part.last:
            del self._heard_at[pid]

    def finish(self, now: float) -> bool:
        """Answer when there is nobody to wait for; true when the survey is over."""
        if self._client.is_closed:
            return True
        if any(now - heard_at < PATIENCE_SECONDS for heard_at in self._heard_at.values()):
            return False
        silent = [self._processes[pid] for pid in sorted(self._heard_at)]
        self._client.reply(
            ok=True,
            connections=[each for found in self._found.values() for each in found],
            silent=[
                {"service": each.service, "pid": each.pid, "id": each.worker_id} for each in silent
            ],
        )
        return True
