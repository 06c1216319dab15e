"""What a worker tells of itself: the counts of its row on the scoreboard, and its load.

These are plain stores into shared memory, about 50 ns each, so that `status` needs nothing from a
worker. Moments are seconds of the monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from .. import scoreboard as board
from ..scoreboard import Scoreboard, WorkerState

MAX_LOAD: Final = board.ABSENT - 1
# What makes a process busier than its siblings, in eighths of a connection of which nothing is
# known yet. One that was answered is a peer that keeps its connection, or is about to close it.
RUNNING_LOAD: Final = 9
FRESH_LOAD: Final = 8
CONNECTION_LOAD: Final = 1
SINGLE_LOAD: Final = 64  # of what runs or is fresh, where a process runs one task at a time
EXACT_SECONDS: Final = 0.001  # how exactly it is told since when a function has the CPU


class WorkerStats:
    """The one writer of a row.

    Attributes:
        connections: open now.
        fresh: those of them of which nothing was answered yet.
        load: what siblings compare.
        running: tasks that have blocked and go on later; the one on the CPU is not among them.
        done: tasks since the process started.
        executing: memory of the one cell for 1 + the number of the function on the CPU, 0 for none.
        number: what stands in that cell, so that a run of equal tasks need not write it again.
        since: memory of the one cell that tells since when it has the CPU.
        on_change: called when the load has changed; set while somebody waits for that.
    """

    __slots__ = (
        "_base",
        "_done",
        "_entered",
        "_fresh_load",
        "_is_compared",
        "_loads",
        "_most_quiet",
        "_row",
        "_running_load",
        "connections",
        "done",
        "executing",
        "floats",
        "fresh",
        "ints",
        "load",
        "number",
        "on_change",
        "running",
        "since",
    )

    def __init__(self, scoreboard: Scoreboard, *, runs_one_at_a_time: bool = False) -> None:
        self.ints = scoreboard.ints
        self.floats = scoreboard.floats
        self._loads = scoreboard.loads
        self._is_compared = False
        self.connections = self.fresh = self.load = self.running = self.done = self.number = 0
        self._running_load = SINGLE_LOAD if runs_one_at_a_time else RUNNING_LOAD
        self._fresh_load = SINGLE_LOAD if runs_one_at_a_time else FRESH_LOAD
        self._most_quiet = SINGLE_LOAD - 1 if runs_one_at_a_time else MAX_LOAD
        self.on_change: Callable[[], None] | None = None
        self._take_row(0)

    def _take_row(self, row: int) -> None:
        self._row = row
        self._base = row * board.CELLS
        self._done = self._int_cell(board.DONE)
        self.executing = self._int_cell(board.EXECUTING)
        since = self._base + board.EXECUTING_SINCE
        self.since = self.floats[since : since + 1]
        self._entered = 0.0

    def _int_cell(self, cell: int) -> memoryview:
        """A cell that each task writes to: by itself, its index is 0 and needs no object."""
        return self.ints[self._base + cell : self._base + cell + 1]

    def boot(self, row: int, pid: int) -> None:
        """The process `pid` has taken `row`."""
        self._take_row(row)
        self.ints[self._base + board.PID] = pid
        self.floats[self._base + board.STARTED] = monotonic()
        self.state(WorkerState.BOOTING)
        self.beat(0, 0.0)

    def state(self, state: WorkerState) -> None:
        """Tell the state; siblings compare their load with that of READY workers only."""
        self.ints[self._base + board.STATE] = state
        self._is_compared = state == WorkerState.READY
        if self._is_compared:
            self._tell_load()
        else:
            self._loads[self._row] = board.ABSENT

    def beat(self, oldest: int, since: float) -> None:
        """The loop turns.

        Args:
            oldest: 1 + the number of the function that has been running longest; 0: none.
            since: when that began.
        """
        base = self._base
        self.ints[base + board.EXECUTING] = 0
        self.ints[base + board.OLDEST] = oldest
        self.floats[base + board.OLDEST_SINCE] = since
        self.floats[base + board.HEARTBEAT] = monotonic()

    def after_fork_in_child(self) -> None:
        """This is no worker: tell what is told from now on to nobody."""
        nobody = Scoreboard(1)
        self.ints, self.floats, self._loads = nobody.ints, nobody.floats, nobody.loads
        self._take_row(0)

    # -- connections --------------------------------------------------------------------------

    def accepted(self) -> None:
        """A connection has been opened, and is fresh."""
        self.ints[self._base + board.ACCEPTED] += 1
        self.fresh += 1
        self._set_connections(self.connections + 1)

    def answered(self) -> None:
        """A connection is fresh no more."""
        self.fresh -= 1
        self._tell_load()

    def refused(self) -> None:
        """A connection has been turned away."""
        self.ints[self._base + board.REFUSED] += 1

    def closed(self, bytes_read: int, bytes_written: int, *, was_fresh: bool = True) -> None:
        """A connection has been closed, over which so many octets went."""
        self.fresh -= was_fresh
        self.ints[self._base + board.BYTES_READ] += bytes_read
        self.ints[self._base + board.BYTES_WRITTEN] += bytes_written
        self._set_connections(self.connections - 1)

    def _set_connections(self, connections: int) -> None:
        self.connections = connections
        self.ints[self._base + board.CONNECTIONS] = connections
        self._tell_load()

    # -- tasks --------------------------------------------------------------------------------

    def enter(self, now: float) -> None:
        """The loop gives the CPU to user code, which stores its function's number itself."""
        if now - self._entered > EXACT_SECONDS:  # so it is mostly without a store
            self._entered = self.since[0] = now

    def back_in_loop(self) -> None:
        """The loop has the CPU again."""
        self.number = self.executing[0] = 0
        self._done[0] = self.done

    def set_running(self, running: int) -> None:
        """So many tasks have blocked and still run."""
        self.running = running
        self.ints[self._base + board.RUNNING] = running
        self.back_in_loop()
        self._tell_load()

    def set_threads(self, running: int, stuck: int) -> None:
        """So many native threads are taken, so many of them by calls that have ended."""
        self.ints[self._base + board.THREADS] = running
        self.ints[self._base + board.STUCK] = stuck

    def failed(self) -> None:
        """A task has failed."""
        self.ints[self._base + board.FAILED] += 1

    def abandoned(self) -> None:
        """A task that ignores its end has been given up."""
        self.ints[self._base + board.ABANDONED] += 1

    # -- load ---------------------------------------------------------------------------------

    def siblings(self) -> int:
        """How many of the first rows hold all workers that are compared, this one included."""
        return len(bytes(self._loads).rstrip(b"\xff") + b"\xff") // 2

    def excess(self, rows: int) -> tuple[int, int]:
        """Our load above the smallest of the first `rows`, and that smallest load."""
        loads = self._loads[:rows]
        # Often one is idle, and found among the low bytes in a third of the time of a look at all.
        idle = loads.tobytes()[::2].find(0)
        least = 0 if idle >= 0 and not loads[idle] else min(loads)
        return self.load - least, least

    def is_next_to_overflow(self, concurrency: int, beaten_since: float) -> bool:
        """Whether no sibling whose loop turns has a turn left, or less to do than we.

        Args:
            concurrency: turns of each.
            beaten_since: an older heartbeat is that of a loop that stands still.
        """
        loads = self._loads
        for row in range(self.siblings()):
            base = row * board.CELLS
            if (
                row != self._row
                and loads[row] != board.ABSENT
                and (self.ints[base + board.RUNNING] < concurrency or loads[row] < loads[self._row])
                and self.floats[base + board.HEARTBEAT] >= beaten_since
            ):
                return False
        return True

    def _tell_load(self) -> None:
        if self._is_compared:
            quiet = self.connections * CONNECTION_LOAD
            load = self.load = (
                (quiet if quiet < self._most_quiet else self._most_quiet)
                + self.fresh * self._fresh_load
                + self.running * self._running_load
            )
            self._loads[self._row] = load if load < MAX_LOAD else MAX_LOAD
            if self.on_change is not None:
                self.on_change()
