"""What the holder of the lock knows by heart: the counts of each queue, and the last number given.

It is written down in the transaction that changes it, and read again when a transaction has failed.
"""

from __future__ import annotations

import sqlite3

from ..records import Priority
from ..states import State

READY_CELLS = ("ready_high", "ready_normal", "ready_low")
TOTALS = ("put_total", "done_total", "dead_total", "retried_total", "lost_total")
CELLS = (
    "delayed",
    *READY_CELLS,
    "running",
    "done",
    "dead",
    "cancelled",
    "expired",
    *TOTALS,
)
_WRITE = f"UPDATE queue SET {', '.join(f'{cell} = ?' for cell in CELLS)} WHERE number = ?"


class Queue:
    """A queue of the store.

    Attributes:
        counts: by the names of the columns.
        turn: which of 32 claims comes next (`claims`).
        has_suspects: a task that was lost twice may be ready.
    """

    def __init__(self, number: int, name: str, is_paused: bool, counts: dict[str, int]) -> None:
        self.number = number
        self.name = name
        self.is_paused = is_paused
        self.counts = counts
        self.turn = 0
        self.has_suspects = True
        self.is_changed = False

    @property
    def ready(self) -> int:
        counts = self.counts
        return counts["ready_high"] + counts["ready_normal"] + counts["ready_low"]

    @property
    def waiting(self) -> int:
        """Tasks that count against the most that may wait."""
        return self.ready + self.counts["delayed"]

    def add(self, state: State, priority: int, number: int = 1) -> None:
        """So many more tasks are in the state; fewer if negative."""
        cell = READY_CELLS[priority] if state == State.READY else state.word
        self.counts[cell] += number
        self.is_changed = True

    def count(self, total: str, number: int = 1) -> None:
        """So many more have ever been put, done …"""
        self.counts[total] += number
        self.is_changed = True


class Ledger:
    """Queues by number and name, and the source of fences and positions."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.load()

    def load(self) -> None:
        """Read what was written down last."""
        self.last: int
        (self.last,) = self._connection.execute("SELECT last FROM meta").fetchone()
        self._written = self.last
        self.by_number: dict[int, Queue] = {}
        self.by_name: dict[str, Queue] = {}
        columns = ", ".join(CELLS)
        query = f"SELECT number, name, paused, {columns} FROM queue"
        for number, name, paused, *counts in self._connection.execute(query):
            self._know(Queue(number, name, bool(paused), dict(zip(CELLS, counts, strict=True))))

    def _know(self, queue: Queue) -> Queue:
        self.by_number[queue.number] = self.by_name[queue.name] = queue
        return queue

    def queue(self, name: str) -> Queue:
        """The queue of that name, which is made if there is none."""
        known = self.by_name.get(name)
        if known is not None:
            return known
        cursor = self._connection.execute("INSERT INTO queue (name) VALUES (?)", (name,))
        assert cursor.lastrowid is not None
        return self._know(Queue(cursor.lastrowid, name, False, dict.fromkeys(CELLS, 0)))

    def next(self) -> int:
        """A number that is given once: a fence, or a position behind all others."""
        self.last += 1
        return self.last

    def write(self) -> None:
        """Write down what has changed, within the transaction."""
        if self.last != self._written:
            self._connection.execute("UPDATE meta SET last = ?", (self.last,))
            self._written = self.last
        for queue in self.by_number.values():
            if queue.is_changed:
                queue.is_changed = False
                values = (*map(queue.counts.__getitem__, CELLS), queue.number)
                self._connection.execute(_WRITE, values)


assert len(READY_CELLS) == len(Priority)
