"""How runs end: told by their worker under their fence, or because their owner has gone."""

from __future__ import annotations

from ..operations import End, Release
from ..records import Terms
from ..states import SUSPECT_LOSSES, Event, Facts, State, retry_delay_ms, verdict
from .session import Session, TaskRow


def end(session: Session, operation: End) -> bool:
    """Whether the fence is the task's; an end that is told again gets the same answer."""
    task = session.task(operation.seq)
    if task is None or task.fence != operation.fence or not operation.fence:
        return False
    if task.state == State.RUNNING:
        settle(session, task, operation)
    return True


def settle(session: Session, task: TaskRow, ended: End) -> None:
    """Write down what becomes of a running task."""
    state = verdict(
        ended.event,
        Facts(
            task.deliveries - task.free,
            task.allowed,
            task.interruptions,
            bool(task.cancel_requested),
        ),
    )
    if ended.event == Event.LOST:
        session.ledger.by_number[task.queue].count("lost_total")
    if state.is_final:
        reason = ended.event.value if state == State.DEAD else None
        session.finish(
            task,
            state,
            reason,
            ended.outcome if state in (State.DONE, State.DEAD) else None,
            fence=ended.fence,
            terms_ttl_ms=ended.terms.result_ttl_ms,
        )
    elif state == State.DELAYED:
        _try_later(session, task, ended)
    else:
        _give_back(session, task, ended.event)


def _try_later(session: Session, task: TaskRow, ended: End) -> None:
    terms, queue = ended.terms, session.ledger.by_number[task.queue]
    wait = ended.after_ms
    if wait is None:
        attempt = task.deliveries - task.free
        wait = retry_delay_ms(attempt, terms.retry_delay_ms, terms.max_retry_delay_ms)
    session.execute(
        "UPDATE task SET state = 0, due_at = ?, owner = NULL, outcome = ? WHERE seq = ?",
        (session.now + wait, ended.outcome, task.seq),
    )
    session.move(queue, task.priority, State.RUNNING, State.DELAYED)
    queue.count("retried_total")
    session.due(session.now + wait)


def _give_back(session: Session, task: TaskRow, event: Event) -> None:
    """Ready again, at its old place; an end that its process still tells comes too late."""
    losses = task.losses + (event == Event.LOST)
    is_suspect = losses >= SUSPECT_LOSSES
    queue = session.ledger.by_number[task.queue]
    session.execute(
        "UPDATE task SET state = 1, fence = 0, owner = NULL, free = ?, interruptions = ?,"
        " losses = ?, suspect = ? WHERE seq = ?",
        (
            task.free + (event != Event.LOST),
            task.interruptions + (event == Event.INTERRUPTED),
            losses,
            is_suspect,
            task.seq,
        ),
    )
    queue.has_suspects = queue.has_suspects or is_suspect
    session.move(queue, task.priority, State.RUNNING, State.READY)


def release(session: Session, operation: Release) -> int:
    """An owner holds no more what the store says it holds; returns how many tasks those are."""
    held = session.tasks("state = 2 AND owner = ?", operation.owner)
    gone = [task for task in held if operation.keep is None or task.fence not in operation.keep]
    for task in gone:
        is_overdue = task.fence in operation.overdue
        event = Event.TIMED_OUT if is_overdue else operation.event
        settle(session, task, End(task.seq, 0, event, terms=Terms()))
    if operation.keep is None:
        session.execute("DELETE FROM owner WHERE number = ?", (operation.owner,))
    return len(gone)
