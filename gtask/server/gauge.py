"""What a worker tells of itself: its row and its load on the scoreboard.

Plain stores into shared memory, about 50 ns each, so that `status` needs nothing from a worker.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ..master import scoreboard as board
from ..master.scoreboard import Scoreboard, State

MAX_LOAD = board.ABSENT - 1


class Gauge:
    """The writer of one row.

    Attributes:
        connections, running, done: the counts so far.
        on_change: called when the load has changed; set while somebody waits for that.
    """

    __slots__ = (
        "_base",
        "_floats",
        "_ints",
        "_is_compared",
        "_loads",
        "_row",
        "connections",
        "done",
        "on_change",
        "running",
    )

    def __init__(self, scoreboard: Scoreboard, row: int) -> None:
        self._ints = scoreboard.ints
        self._floats = scoreboard.floats
        self._loads = scoreboard.loads
        self._row = row
        self._base = row * board.CELLS
        self._is_compared = False
        self.connections = self.running = self.done = 0
        self.on_change: Callable[[], None] | None = None

    def boot(self, pid: int) -> None:
        """A process has taken the row."""
        self._ints[self._base + board.PID] = pid
        self._floats[self._base + board.STARTED] = monotonic()
        self.state(State.BOOTING)
        self.beat(0, 0.0)

    def state(self, state: State) -> None:
        """Tell the state; only a READY worker's siblings compare their load with its."""
        self._ints[self._base + board.STATE] = state
        self._is_compared = state == State.READY
        if self._is_compared:
            self._load()
        else:
            self._loads[self._row] = board.ABSENT

    def beat(self, oldest: int, since: float) -> None:
        """The loop turns; `oldest` is 1 + the number of the function that runs longest."""
        base = self._base
        self._ints[base + board.EXECUTING] = 0
        self._ints[base + board.OLDEST] = oldest
        self._floats[base + board.OLDEST_SINCE] = since
        self._floats[base + board.HEARTBEAT] = monotonic()

    def accepted(self) -> None:
        """A connection has been opened."""
        self._ints[self._base + board.ACCEPTED] += 1
        self.connected(self.connections + 1)

    def refused(self) -> None:
        """A connection has been turned away."""
        self._ints[self._base + board.REFUSED] += 1

    def closed(self, bytes_read: int, bytes_written: int) -> None:
        """A connection has been closed."""
        self._ints[self._base + board.BYTES_READ] += bytes_read
        self._ints[self._base + board.BYTES_WRITTEN] += bytes_written
        self.connected(self.connections - 1)

    def siblings(self) -> int:
        """How many of the first rows hold all workers that are compared, this one included."""
        return len(bytes(self._loads).rstrip(b"\xff") + b"\xff") // 2

    def excess(self, rows: int) -> tuple[int, int]:
        """Our load above the smallest of the first `rows`, and that smallest load."""
        least = min(self._loads[:rows])
        return self.connections + self.running - least, least

    def connected(self, connections: int) -> None:
        """So many connections are open."""
        self.connections = connections
        self._ints[self._base + board.CONNECTIONS] = connections
        self._load()

    def entered(self, function: int, now: float, running: int) -> None:
        """A task gets the CPU."""
        base = self._base
        self._floats[base + board.EXECUTING_SINCE] = now
        self._ints[base + board.EXECUTING] = function + 1
        self._ints[base + board.RUNNING] = self.running = running
        self._load()

    def left(self) -> None:
        """The task has ended or blocked: the loop has the CPU again."""
        self._ints[self._base + board.EXECUTING] = 0

    def finished(self, failed: bool, running: int) -> None:
        """A task has ended."""
        base = self._base
        self.done += 1
        self._ints[base + board.DONE] = self.done
        if failed:
            self._ints[base + board.FAILED] += 1
        self._ints[base + board.RUNNING] = self.running = running
        self._load()

    def abandoned(self) -> None:
        """A task that ignores its end has been given up."""
        self._ints[self._base + board.ABANDONED] += 1

    def _load(self) -> None:
        if self._is_compared:
            load = self.connections + self.running
            self._loads[self._row] = load if load < MAX_LOAD else MAX_LOAD
            if self.on_change is not None:
                self.on_change()
