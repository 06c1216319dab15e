"""Workers on their way from the mold to us: told of, but not our children yet.

The mold forks a worker by a process in between, whose end makes the worker ours. What a mold tells
is believed when the kernel says the same: the number is then a child's of ours, and no stranger's.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from .children import is_child
from .messages import Spawned

ARRIVAL_SECONDS = 30.0  # the process in between may have hundreds to fork first
LOOK_SECONDS = 0.01  # between two looks: no signal tells us of a new child


@dataclass(frozen=True)
class Arrival:
    """A worker that a mold tells of; `since` is of the monotonic clock, in seconds."""

    generation: int
    worker: Spawned
    since: float


class Arrivals:
    """Those that are on their way."""

    def __init__(self) -> None:
        self._awaited: list[Arrival] = []

    def wake_at(self, now: float) -> float:
        """When to look again; infinite if nobody is on the way."""
        return now + LOOK_SECONDS if self._awaited else math.inf

    def add(self, generation: int, worker: Spawned, now: float) -> None:
        """A mold tells of a worker."""
        self._awaited.append(Arrival(generation, worker, now))

    def take(self, dead: Collection[int], now: float) -> tuple[list[Arrival], list[Arrival]]:
        """Those that have become our children, and those that never will.

        Args:
            dead: children that have been reaped in this round of the loop.
        """
        here = [one for one in self._awaited if one.worker.pid in dead or is_child(one.worker.pid)]
        lost = [
            one for one in self._awaited if one not in here and now - one.since > ARRIVAL_SECONDS
        ]
        self._awaited = [one for one in self._awaited if one not in here and one not in lost]
        return here, lost
