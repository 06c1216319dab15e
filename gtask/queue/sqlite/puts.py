"""What callers do to tasks: put, cancel; and what operators do: retry, pause."""

from __future__ import annotations

from ...errors import QueueFull
from ..operations import Cancel, CronDone, CronSeen, Pause, Put, Retry
from ..states import State
from .ledger import Queue
from .schema import INLINE_BYTES
from .session import Session

RETRY_AFTER_SECONDS = 1.0  # what a caller is told that finds the store full

_INSERT = (
    "INSERT OR IGNORE INTO task (queue, id, state, priority, position, function, args, key,"
    " enqueued_at, due_at, expires_at, retries, timeout_ms, result_ttl_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def put(session: Session, operation: Put) -> tuple[str, State, bool]:
    """The task's id and state, and whether it is new.

    Raises:
        QueueFull: no more is taken; a task that is there already is found all the same.
    """
    queue, task = session.queue(operation.queue), operation.task
    if full := _full(session, queue):
        found = _find(session, queue, task.id, task.key)
        if found is None:
            raise full
        return (*found, False)
    now = session.now
    state = State.DELAYED if task.delay_ms else State.READY
    due = now + task.delay_ms
    is_long = len(task.args) > INLINE_BYTES
    cursor = session.execute(
        _INSERT,
        (
            queue.number,
            task.id,
            state,
            task.priority,
            session.ledger.next(),
            task.function,
            None if is_long else task.args,
            task.key,
            now,
            due,
            None if task.expires_ms is None else now + task.expires_ms,
            task.retries,
            task.timeout_ms,
            task.result_ttl_ms,
        ),
    )
    if not cursor.rowcount:
        found = _find(session, queue, task.id, task.key)
        assert found is not None
        return (*found, False)
    if is_long:
        session.execute("INSERT INTO arguments VALUES (?, ?)", (cursor.lastrowid, task.args))
    queue.add(state, task.priority)
    queue.count("put_total")
    session.due(due if task.delay_ms else None)
    session.due(None if task.expires_ms is None else now + task.expires_ms)
    return task.id, state, True


def _full(session: Session, queue: Queue) -> QueueFull | None:
    limits = session.limits
    after = {"retry_after": RETRY_AFTER_SECONDS}
    if queue.waiting >= limits.max_waiting:
        data = {**after, "limit": limits.max_waiting}
        return QueueFull(f"{limits.max_waiting} tasks are waiting already", data)
    if session.used_bytes() >= limits.max_bytes:
        data = {**after, "limit": limits.max_bytes}
        return QueueFull(f"the store holds {limits.max_bytes} bytes already", data)
    return None


def _find(session: Session, queue: Queue, id: str, key: str | None) -> tuple[str, State] | None:
    """The task that a put means: that of the id, else the one with the key that is not final."""
    query = "SELECT id, state FROM task WHERE queue = ? AND "
    row = session.execute(query + "id = ?", (queue.number, id)).fetchone()
    if row is None and key is not None:
        row = session.execute(query + "key = ? AND state <= 2", (queue.number, key)).fetchone()
    return row and (row[0], State(row[1]))


def cancel(session: Session, operation: Cancel) -> tuple[State, bool, int, int]:
    """The task's state, whether its end is asked for, and who runs it under which fence."""
    task = session.task(session.seq(operation.queue, operation.id))
    assert task is not None
    state = State(task.state)
    if state < State.RUNNING:
        session.finish(task, State.CANCELLED)
        return State.CANCELLED, True, 0, 0
    if state == State.RUNNING:
        session.execute("UPDATE task SET cancel_requested = 1 WHERE seq = ?", (task.seq,))
        return state, True, task.owner or 0, task.fence
    return state, bool(task.cancel_requested), 0, 0


def retry(session: Session, operation: Retry) -> bool:
    """Begin a dead task anew; false if it is not dead."""
    task = session.task(session.seq(operation.queue, operation.id))
    assert task is not None
    if task.state != State.DEAD:
        return False
    cursor = session.execute(
        "UPDATE OR IGNORE task SET state = ?, position = ?, due_at = ?, expires_at = NULL,"
        " deliveries = 0, free = 0, interruptions = 0, losses = 0, suspect = 0, fence = 0,"
        " cancel_requested = 0, refused_at = NULL, reason = NULL, outcome = NULL,"
        " started_at = NULL, ended_at = NULL, forget_at = NULL WHERE seq = ?",
        (State.READY, session.ledger.next(), session.now, task.seq),
    )
    if not cursor.rowcount:  # its key is another task's by now
        return False
    session.move(session.queue(operation.queue), task.priority, State.DEAD, State.READY)
    return True


def cron_seen(session: Session, operation: CronSeen) -> int:
    """Up to when a section's moments are dealt with."""
    session.execute("INSERT OR IGNORE INTO cron VALUES (?, ?)", (operation.name, session.now))
    row = session.execute("SELECT moment FROM cron WHERE name = ?", (operation.name,)).fetchone()
    return int(row[0])


def cron_done(session: Session, operation: CronDone) -> None:
    """A section's moments are dealt with."""
    session.execute(
        "UPDATE cron SET moment = max(moment, ?) WHERE name = ?",
        (operation.moment, operation.name),
    )


def pause(session: Session, operation: Pause) -> bool:
    """Deal nothing of the queue, or deal again."""
    queue = session.queue(operation.queue)
    queue.is_paused = operation.is_paused
    session.execute(
        "UPDATE queue SET paused = ? WHERE number = ?", (operation.is_paused, queue.number)
    )
    return queue.is_paused
