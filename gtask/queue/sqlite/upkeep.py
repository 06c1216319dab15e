"""What becomes due by itself: delayed tasks, those that expire, and records whose time is over.

At most `STEP` of each in one transaction, so that nobody waits long for it.
"""

from __future__ import annotations

from ..operations import Purge
from ..states import State
from .ledger import Queue
from .session import Session, TaskRow

STEP = 500
_FINAL = (State.DONE, State.DEAD, State.CANCELLED, State.EXPIRED)


def upkeep(session: Session) -> None:
    """Do what is due, and note when to look again."""
    is_more = _promote(session) or _expire(session)
    for state in _FINAL:
        is_more = _forget(session, state) or is_more
    is_more = _forget_surplus_of_dead(session) or is_more
    if is_more:
        session.due(session.now)
    for query in (
        "SELECT min(due_at) FROM task WHERE state = 0",
        "SELECT min(expires_at) FROM task WHERE expires_at IS NOT NULL AND state <= 1",
        *(f"SELECT min(forget_at) FROM task WHERE state > 2 AND state = {int(s)}" for s in _FINAL),
    ):
        session.due(session.execute(query).fetchone()[0])


def _promote(session: Session) -> bool:
    """Delayed tasks that are due queue behind those that are ready; true if there may be more."""
    due = session.tasks(f"state = 0 AND due_at <= ? ORDER BY due_at LIMIT {STEP}", session.now)
    for task in due:
        session.execute(
            "UPDATE task SET state = 1, position = ? WHERE seq = ?",
            (session.ledger.next(), task.seq),
        )
        queue = session.ledger.by_number[task.queue]
        session.move(queue, task.priority, State.DELAYED, State.READY)
    return len(due) == STEP


def _expire(session: Session) -> bool:
    over = session.tasks(
        f"expires_at IS NOT NULL AND state <= 1 AND expires_at <= ? LIMIT {STEP}", session.now
    )
    for task in over:
        session.finish(task, State.EXPIRED)
    return len(over) == STEP


def _forget(session: Session, state: State) -> bool:
    over = session.tasks(
        f"state > 2 AND state = {int(state)} AND forget_at <= ? LIMIT {STEP}", session.now
    )
    _drop(session, over)
    return len(over) == STEP


def _forget_surplus_of_dead(session: Session) -> bool:
    dead = sum(queue.counts["dead"] for queue in session.ledger.by_number.values())
    surplus = min(STEP, dead - session.limits.max_dead)
    if surplus > 0:
        condition = f"state > 2 AND state = 4 ORDER BY forget_at LIMIT {surplus}"
        _drop(session, session.tasks(condition))
    return surplus == STEP


def purge(session: Session, operation: Purge) -> int:
    """Forget final records of a state that ended long enough ago, the first `STEP` of them."""
    queue, state = session.queue(operation.queue), State[operation.state.upper()]
    over = session.tasks(
        f"state > 2 AND state = {int(state)} AND queue = ? AND ended_at <= ? LIMIT {STEP}",
        queue.number,
        session.now - operation.older_ms,
    )
    _drop(session, over)
    return len(over)


def _drop(session: Session, tasks: list[TaskRow]) -> None:
    session.forget([task.seq for task in tasks])
    for task in tasks:
        queue: Queue = session.ledger.by_number[task.queue]
        queue.add(State(task.state), task.priority, -1)
