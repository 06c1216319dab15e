"""Shared memory between the master and its workers: one row a worker process.

A worker writes only its own row, the master reads all of them, so `status` and the watchdog need
nothing from a busy worker. Every cell is one aligned 8-byte word, hence never read half-written.

A worker's load (connections plus running tasks) is kept apart from the rows in one dense array a
service, because its siblings look for the smallest whenever they accept.
"""

from __future__ import annotations

import mmap
from enum import IntEnum

CELLS = 32
ABSENT = 0xFFFF  # a load that no sibling compares itself with

# Integer cells of a row.
PID = 0
STATE = 1
CONNECTIONS = 2
RUNNING = 3
DONE = 4
FAILED = 5
ACCEPTED = 6
REFUSED = 7
EXECUTING = 8  # 1 + number of the function that is on the CPU; 0: none
OLDEST = 9  # 1 + number of the function that has been running longest; 0: none
BYTES_READ = 10
BYTES_WRITTEN = 11
ABANDONED = 12  # tasks that ignored their time limit and still run
THREADS = 16  # native threads of `blocking` tasks that are taken
STUCK = 17  # those of them whose call has been answered without them
# Float cells of a row: seconds on CLOCK_MONOTONIC, which all processes of a host share.
HEARTBEAT = 24
STARTED = 25
EXECUTING_SINCE = 26
OLDEST_SINCE = 27


class WorkerState(IntEnum):
    """What a worker says of itself in its `STATE` cell."""

    EMPTY = 0
    BOOTING = 1
    READY = 2
    DRAINING = 3


def rows_for(count: int) -> int:
    """How many rows a service of `count` processes has: for those that drain and for TTIN, too."""
    return max(256, 4 * count)


class Scoreboard:
    """Rows for up to `capacity` processes of one generation of one service.

    Created by the master before the fork. Untouched pages cost no memory, so the capacity may
    be generous.

    Attributes:
        ints, floats: the rows as 8-byte cells; row r's cell c is at ``r * CELLS + c``.
        loads: one 16-bit load a row; `ABSENT` where nobody accepts.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self.capacity = capacity
        rows = capacity * CELLS * 8
        self._memory = mmap.mmap(-1, rows + capacity * 2)
        view = memoryview(self._memory)
        self.ints = view[:rows].cast("q")
        self.floats = view[:rows].cast("d")
        self.loads = view[rows : rows + capacity * 2].cast("H")
        for row in range(capacity):
            self.loads[row] = ABSENT

    def clear(self, row: int) -> None:
        """Forget a process that has ended, so that its siblings and `status` do too."""
        self.loads[row] = ABSENT
        for cell in range(row * CELLS, (row + 1) * CELLS):
            self.ints[cell] = 0
