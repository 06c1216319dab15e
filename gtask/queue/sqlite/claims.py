"""Who gets which task: owners, the order of priorities, and the start of a run."""

from __future__ import annotations

from typing import NamedTuple

from ..operations import Claim, Join
from ..records import Dealt, Priority, Terms
from ..states import SUSPECT_LOSSES, UNKNOWN_GRACE_MS, State, unknown_delay_ms
from .ledger import READY_CELLS, Queue
from .session import COLUMNS, Session, TaskRow

# Of 32 claims, 28 look at high first, 3 at normal and 1 at low.
HIGH_FIRST = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
NORMAL_FIRST = (Priority.NORMAL, Priority.HIGH, Priority.LOW)
LOW_FIRST = (Priority.LOW, Priority.HIGH, Priority.NORMAL)
ROUND = [HIGH_FIRST] * 32
ROUND[7] = ROUND[15] = ROUND[23] = NORMAL_FIRST
ROUND[31] = LOW_FIRST

_SELECT = (
    f"SELECT {COLUMNS}, args FROM task"
    " WHERE state = 1 AND queue = ? AND priority = ? AND suspect = ? ORDER BY position LIMIT ?"
)
_START = (
    "UPDATE task SET state = 2, fence = ?, owner = ?, deliveries = deliveries + 1,"
    " started_at = ?, allowed = ?, limit_ms = ? WHERE seq = ?"
)


class _Ready(NamedTuple):
    """A task that may be claimed, with its arguments unless they are apart."""

    task: TaskRow
    args: bytes | None


def join(session: Session, operation: Join) -> int:
    """The number of a process as an owner, the same as before if it has had one."""
    one = operation.identity
    values = (one.boot_id, one.pid_namespace, one.pid, one.start_time)
    session.execute(
        "INSERT OR IGNORE INTO owner (boot_id, pid_namespace, pid, start_time) VALUES (?, ?, ?, ?)",
        values,
    )
    row = session.execute(
        "SELECT number FROM owner"
        " WHERE boot_id = ? AND pid_namespace = ? AND pid = ? AND start_time = ?",
        values,
    ).fetchone()
    return int(row[0])


def claim(session: Session, operation: Claim) -> list[Dealt]:
    """Start ready tasks for an owner; what it does not know is put off."""
    queue = session.queue(operation.queue)
    if queue.is_paused:
        return []
    dealt: list[Dealt] = []
    starts = []
    for task, args in _pick(session, queue, operation):
        terms = operation.functions.get(task.function)
        if task.expires_at is not None and task.expires_at <= session.now:
            session.finish(task, State.EXPIRED)
        elif terms is None:
            _refuse(session, queue, task)
        else:
            run = _run(session, task, args, terms)
            dealt.append(run)
            allowed = terms.retries if task.retries is None else task.retries
            starts.append(
                (run.fence, operation.owner, session.now, allowed, run.timeout_ms, task.seq)
            )
            session.move(queue, task.priority, State.READY, State.RUNNING)
    session.connection.executemany(_START, starts)
    return dealt


def _pick(session: Session, queue: Queue, operation: Claim) -> list[_Ready]:
    """The next tasks, by their priorities' turns; at most one that was lost twice is among them."""
    limit = operation.limit
    found: dict[Priority, list[_Ready]] = {priority: [] for priority in Priority}
    may_have_suspect = operation.takes_suspect and queue.has_suspects
    suspect: list[_Ready] = []
    for priority in HIGH_FIRST:
        if not queue.counts[READY_CELLS[priority]]:
            continue
        if may_have_suspect and not suspect:
            suspect = _select(session, queue, priority, 1, 1)
            found[priority] += suspect
        found[priority] += _select(session, queue, priority, 0, limit)
    if may_have_suspect and not suspect:
        queue.has_suspects = False
    picked: list[_Ready] = []
    for lane in found.values():
        lane.reverse()  # taken from the end
    while len(picked) < limit:
        lane = next((found[each] for each in ROUND[queue.turn % 32] if found[each]), [])
        if not lane:
            break
        picked.append(lane.pop())
        queue.turn += 1
    return picked


def _select(
    session: Session, queue: Queue, priority: Priority, suspect: int, limit: int
) -> list[_Ready]:
    rows = session.execute(_SELECT, (queue.number, priority, suspect, limit)).fetchall()
    return [_Ready(TaskRow(*row[:-1]), row[-1]) for row in rows]


def _run(session: Session, task: TaskRow, args: bytes | None, terms: Terms) -> Dealt:
    return Dealt(
        task.seq,
        session.ledger.next(),
        task.id,
        task.function,
        session.args(task.seq, args),
        task.deliveries - task.free + 1,
        task.deliveries + 1,
        task.enqueued_at,
        terms.timeout_ms if task.timeout_ms is None else task.timeout_ms,
        task.losses >= SUSPECT_LOSSES,
    )


def _refuse(session: Session, queue: Queue, task: TaskRow) -> None:
    """Nobody here knows the function: perhaps a newer process does, in a while."""
    since = session.now if task.refused_at is None else task.refused_at
    waited = session.now - since
    if waited >= UNKNOWN_GRACE_MS:
        session.finish(task, State.DEAD, "unknown_function")
        return
    due = session.now + unknown_delay_ms(waited)
    session.execute(
        "UPDATE task SET state = 0, due_at = ?, refused_at = ? WHERE seq = ?",
        (due, since, task.seq),
    )
    session.move(queue, task.priority, State.READY, State.DELAYED)
    session.due(due)
