"""What the process that owns a store tells the master, in memory that both share."""

from __future__ import annotations

import mmap
import signal
from typing import Final

# What ends the process. TERM does not: a manager sends that to the whole tree, and the store
# must outlive the workers that drain.
END_SIGNAL: Final = signal.SIGUSR1
FIGURES: Final = ("ready", "delayed", "running", "dead", "done_total", "workers")
REASONS: Final = (
    "ok",
    "starting",
    "waiting for the lock",
    "unreachable",
    "locked",
    "disk_full",
    "read_only",
    "version",
    "corrupt",
    "moved",
)


class StoreBoard:
    """Made by the master before the fork; the store process is its one writer.

    Cells of 8 bytes: the heartbeat (seconds of the monotonic clock), the number of the state in
    `REASONS`, the age of the oldest ready task in seconds (below 0: there is none), then `FIGURES`.
    """

    def __init__(self) -> None:
        view = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
        self._floats = view.cast("d")
        self._ints = view.cast("q")
        self.state = "starting"
        self.oldest_ready = -1.0

    @property
    def heartbeat(self) -> float:
        """When its loop last turned; 0.0 before the first time."""
        return self._floats[0]

    @heartbeat.setter
    def heartbeat(self, moment: float) -> None:
        self._floats[0] = moment

    @property
    def state(self) -> str:
        """The word `ok`, or what is wrong."""
        return REASONS[self._ints[1]]

    @state.setter
    def state(self, state: str) -> None:
        self._ints[1] = REASONS.index(state if state in REASONS else "unreachable")

    @property
    def oldest_ready(self) -> float:
        return self._floats[2]

    @oldest_ready.setter
    def oldest_ready(self, seconds: float) -> None:
        self._floats[2] = seconds

    def tell(self, figures: dict[str, int]) -> None:
        """Write some of the figures."""
        for name, number in figures.items():
            self._ints[3 + FIGURES.index(name)] = number

    def figures(self) -> dict[str, int]:
        """All figures."""
        return {name: self._ints[3 + index] for index, name in enumerate(FIGURES)}
