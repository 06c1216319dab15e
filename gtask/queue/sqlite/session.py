"""`Session`: one transaction, and the few things that all operations in it do."""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from ...errors import UnknownJob
from ..records import DEAD_KEPT_MS, LEAST_KEPT_MS, Limits
from ..states import State
from .ledger import Ledger, Queue


class TaskRow(NamedTuple):
    """A task's record without its arguments; see `schema`."""

    seq: int
    queue: int
    id: str
    state: int
    priority: int
    position: int
    function: str
    enqueued_at: int
    due_at: int
    expires_at: int | None
    started_at: int | None
    ended_at: int | None
    refused_at: int | None
    retries: int | None
    timeout_ms: int | None
    result_ttl_ms: int | None
    allowed: int
    limit_ms: int
    fence: int
    owner: int | None
    deliveries: int
    free: int
    interruptions: int
    losses: int
    cancel_requested: int
    reason: str | None


COLUMNS = ", ".join(TaskRow._fields)


class Session:
    """What operations work with.

    Args:
        now: milliseconds of the unix clock, the same for all that is done in the transaction.

    Attributes:
        execute: of the connection.
        finished: queue and id of each task that has become final.
        next_at: the earliest moment at which something becomes due, as far as was seen here.
    """

    def __init__(
        self, connection: sqlite3.Connection, ledger: Ledger, limits: Limits, now: int
    ) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.ledger = ledger
        self.limits = limits
        self.now = now
        self.finished: list[tuple[str, str]] = []
        self.next_at: int | None = None
        self._used_bytes = -1

    def due(self, moment: int | None) -> None:
        """Something is to be looked at again at that moment."""
        if moment is not None and (self.next_at is None or moment < self.next_at):
            self.next_at = moment

    def queue(self, name: str) -> Queue:
        return self.ledger.queue(name)

    def seq(self, queue: str, id: str) -> int:
        """The number of a task's record.

        Raises:
            UnknownJob: there is none.
        """
        known = self.ledger.by_name.get(queue)
        found = (
            known
            and self.execute(
                "SELECT seq FROM task WHERE queue = ? AND id = ?", (known.number, id)
            ).fetchone()
        )
        if not found:
            raise UnknownJob(f"there is no task {id} in this store")
        return int(found[0])

    def move(self, queue: Queue, priority: int, before: State, after: State) -> None:
        """A task goes from one state to another."""
        queue.add(before, priority, -1)
        queue.add(after, priority)

    def finish(
        self,
        task: TaskRow,
        state: State,
        reason: str | None = None,
        outcome: bytes | None = None,
        *,
        fence: int = 0,
        terms_ttl_ms: int = 0,
    ) -> None:
        """A task gets a final state.

        Args:
            fence: of the run whose end this is; that end, told again, is the same then.
            terms_ttl_ms: for how long its function has the record kept, if its put does not say.
        """
        queue = self.ledger.by_number[task.queue]
        ttl = terms_ttl_ms if task.result_ttl_ms is None else task.result_ttl_ms
        kept = DEAD_KEPT_MS if state == State.DEAD else max(ttl, LEAST_KEPT_MS)
        self.execute(
            "UPDATE task SET state = ?, reason = ?, outcome = ?, ended_at = ?, forget_at = ?,"
            " fence = ?, owner = NULL WHERE seq = ?",
            (state, reason, outcome, self.now, self.now + kept, fence, task.seq),
        )
        self.move(queue, task.priority, State(task.state), state)
        if state in (State.DONE, State.DEAD):
            queue.count(f"{state.word}_total")
        self.due(self.now + kept)
        self.finished.append((queue.name, task.id))

    def used_bytes(self) -> int:
        """What of the file holds something, as of the first time that it is asked for here."""
        if self._used_bytes < 0:
            pages, free, size = (
                self.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("page_count", "freelist_count", "page_size")
            )
            self._used_bytes = (pages - free) * size
        return self._used_bytes

    def task(self, seq: int) -> TaskRow | None:
        """A task's record, if there is one."""
        row = self.execute(f"SELECT {COLUMNS} FROM task WHERE seq = ?", (seq,)).fetchone()
        return TaskRow(*row) if row else None

    def tasks(self, condition: str, *values: Any) -> list[TaskRow]:
        """The records that a condition selects, all read before anything is changed."""
        query = f"SELECT {COLUMNS} FROM task WHERE {condition}"
        return [TaskRow(*row) for row in self.execute(query, values).fetchall()]

    def args(self, seq: int, inline: bytes | None) -> bytes:
        """A task's arguments, wherever they are."""
        if inline is not None:
            return inline
        row = self.execute("SELECT args FROM arguments WHERE seq = ?", (seq,)).fetchone()
        return bytes(row[0]) if row else b"null"

    def forget(self, seqs: list[int]) -> None:
        """Delete records; their counts are the caller's."""
        rows = [(seq,) for seq in seqs]
        self.connection.executemany("DELETE FROM task WHERE seq = ?", rows)
        self.connection.executemany("DELETE FROM arguments WHERE seq = ?", rows)
