"""What is asked without being changed: records, outcomes, counts, and whether all is well."""

from __future__ import annotations

from typing import Any

from ..operations import Listing, Look, Result
from ..records import Found, Identity, Priority
from ..states import State
from .ledger import CELLS, READY_CELLS, TOTALS, Queue
from .session import COLUMNS, Session, TaskRow

SCAN = 10_000  # records that one listing looks at, so that it takes far less than a second


def look(session: Session, operation: Look) -> dict[str, Any]:
    """A task's record as on the wire."""
    seq = session.seq(operation.queue, operation.id)
    task = session.task(seq)
    assert task is not None
    record = as_record(task)
    if operation.with_args:
        (inline,) = session.execute("SELECT args FROM task WHERE seq = ?", (seq,)).fetchone()
        record["args"] = session.args(seq, inline).decode()
    return record


def as_record(task: TaskRow) -> dict[str, Any]:
    """What `gtask.state` tells."""
    return {
        "id": task.id,
        "state": State(task.state).word,
        "function": task.function,
        "priority": Priority(task.priority).name.lower(),
        "attempt": task.deliveries - task.free,
        "deliveries": task.deliveries,
        "enqueued_at": _seconds(task.enqueued_at),
        "due_at": _seconds(task.due_at),
        "started_at": _seconds(task.started_at),
        "ended_at": _seconds(task.ended_at),
        "reason": task.reason,
        "cancel_requested": bool(task.cancel_requested),
    }


def _seconds(moment: int | None) -> float | None:
    return None if moment is None else moment / 1000


def result(session: Session, operation: Result) -> Found:
    """A task's state and outcome."""
    seq = session.seq(operation.queue, operation.id)
    state, reason, outcome = session.execute(
        "SELECT state, reason, outcome FROM task WHERE seq = ?", (seq,)
    ).fetchone()
    return Found(operation.id, State(state), outcome, reason)


def counts(session: Session) -> dict[str, dict[str, Any]]:
    """What each queue holds; from memory, whatever its length."""
    used = session.used_bytes()
    return {
        queue.name: _counts(session, queue, used) for queue in session.ledger.by_number.values()
    }


def _counts(session: Session, queue: Queue, used: int) -> dict[str, Any]:
    numbers = queue.counts
    states = ("delayed", "running", "done", "dead", "cancelled", "expired")
    return {
        "ready": queue.ready,
        **{name: numbers[name] for name in (*states, *READY_CELLS)},
        "oldest_ready": _oldest_ready(session, queue),
        **{name: numbers[name] for name in TOTALS},
        "paused": queue.is_paused,
        "bytes": used,
    }


def _oldest_ready(session: Session, queue: Queue) -> float | None:
    """For how many seconds the first ready task has been due."""
    oldest = None
    for priority, cell in enumerate(READY_CELLS):
        if queue.counts[cell]:
            for suspect in (0, 1):
                row = session.execute(
                    "SELECT due_at FROM task WHERE state = 1 AND queue = ? AND priority = ?"
                    " AND suspect = ? ORDER BY position LIMIT 1",
                    (queue.number, priority, suspect),
                ).fetchone()
                if row and (oldest is None or row[0] < oldest):
                    oldest = row[0]
    return None if oldest is None else max(0, session.now - oldest) / 1000


def listing(session: Session, operation: Listing) -> tuple[list[dict[str, Any]], int]:
    """A page of records, and the cursor for the next; 0 at the end."""
    queue = session.queue(operation.queue)
    wanted = State[operation.state.upper()] if operation.state else None
    after = operation.after
    last = after if isinstance(after, int) else session.seq(operation.queue, after)
    found: list[dict[str, Any]] = []
    rows = session.execute(
        f"SELECT {COLUMNS} FROM task WHERE seq > ? ORDER BY seq LIMIT {SCAN}", (last,)
    )
    seen = 0
    for row in rows:
        task = TaskRow(*row)
        seen, last = seen + 1, task.seq
        if task.queue != queue.number or (wanted is not None and task.state != wanted):
            continue
        if operation.function and task.function != operation.function:
            continue
        found.append(as_record(task))
        if len(found) >= operation.limit:
            return found, last
    return found, last if seen == SCAN else 0


def holdings(session: Session) -> dict[int, tuple[Identity, dict[int, tuple[Any, ...]]]]:
    """Which process holds which runs."""
    held: dict[int, tuple[Identity, dict[int, tuple[Any, ...]]]] = {}
    columns = "number, boot_id, pid_namespace, pid, start_time"
    for number, *identity in session.execute(f"SELECT {columns} FROM owner").fetchall():
        held[number] = (Identity(*identity), {})
    for task in session.tasks("state = 2"):
        owner = task.owner or 0
        _, runs = held.setdefault(owner, (Identity("", "", 0, 0), {}))
        runs[task.fence] = (task.seq, task.id, task.limit_ms, task.started_at, task.losses > 1)
    return held


def check(session: Session) -> list[str]:
    """What is wrong: with the file, and with the counts."""
    rows = session.execute("PRAGMA quick_check(10)").fetchall()
    problems = [row[0] for row in rows if row[0] != "ok"]
    for queue in session.ledger.by_number.values():
        real: dict[str, int] = dict.fromkeys(CELLS[: -len(TOTALS)], 0)
        query = "SELECT state, priority, count(*) FROM task WHERE queue = ? GROUP BY 1, 2"
        for state, priority, number in session.execute(query, (queue.number,)):
            cell = READY_CELLS[priority] if state == State.READY else State(state).word
            real[cell] += number
        problems += [
            f"queue {queue.name}: {cell} is counted as {queue.counts[cell]}, but there are {number}"
            for cell, number in real.items()
            if queue.counts[cell] != number
        ]
    return problems
