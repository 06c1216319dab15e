"""What goes over FILE.sock: answers to callers, and lines between a store and its workers.

Callers speak JSON-RPC as at any text service. A worker says `store.join`, then sends and gets notifications:

    worker → store   store.capacity, store.end, store.progress, store.drain
    store → worker   store.deal, store.ended, store.stop
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import (
    BAD_ARGUMENTS,
    CANCELLED,
    EXPIRED,
    INTERNAL_ERROR,
    INTERRUPTED,
    TASK_FAILED,
    TIMED_OUT,
    UNKNOWN_FUNCTION,
    WORKER_LOST,
    ProtocolError,
)
from ..protocols.jsontext import dumps, loads
from .records import Dealt, Found
from .states import State

# What a caller is told of a final state whose run has told nothing itself.
_ERRORS = {
    "failed": (TASK_FAILED, "the task has failed"),
    "rejected": (TASK_FAILED, "the task was rejected"),
    "timed_out": (TIMED_OUT, "the task has passed its time limit"),
    "worker_lost": (WORKER_LOST, "the processes that ran the task have died"),
    "interrupted": (INTERRUPTED, "the task was interrupted too often"),
    "unknown_function": (UNKNOWN_FUNCTION, "no process knows the function"),
    "bad_arguments": (BAD_ARGUMENTS, "the arguments do not fit the function"),
    "undecodable": (INTERNAL_ERROR, "the task cannot be read"),
    "bad_result": (INTERNAL_ERROR, "the result cannot be kept"),
    "cancelled": (CANCELLED, "the task was cancelled"),
    "expired": (EXPIRED, "the task did not begin in time"),
}


def as_result(found: Found) -> dict[str, Any]:
    """The answer to `gtask.result`."""
    answer: dict[str, Any] = {"id": found.id, "state": found.state.word}
    if found.state == State.DONE:
        answer["result"] = _value(found.outcome)
    elif found.state.is_final:
        answer["error"] = final_error(found)
    return answer


def final_error(found: Found) -> dict[str, Any]:
    """The error of a final state; its data says that the same put would not help."""
    error = _value(found.outcome)
    if type(error) is not dict or type(error.get("code")) is not int:
        code, message = _ERRORS[found.reason or found.state.word]
        error = {"code": code, "message": message}
    data = error.get("data")
    error["data"] = {**data, "final": True} if type(data) is dict else {"final": True}
    return error


def _value(text: bytes | None) -> Any:
    if text is None:
        return None
    try:
        return loads(text)
    except ProtocolError:
        return None


def deal_line(tasks: Iterable[Dealt]) -> bytes:
    """The notification that gives tasks to a worker; their arguments are not read for that."""
    parts = [
        b"[%d,%d,%b,%b,%b,%d,%d,%d,%d]"
        % (
            task.seq,
            task.fence,
            dumps(task.id),
            dumps(task.function),
            task.args,
            task.attempt,
            task.deliveries,
            task.enqueued_at,
            task.timeout_ms,
        )
        for task in tasks
    ]
    return b'{"jsonrpc":"2.0","method":"store.deal","params":{"tasks":[%b]}}\n' % b",".join(parts)


def notification_line(method: str, **params: Any) -> bytes:
    """A notification with its LF."""
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}\n' % (dumps(method), dumps(params))


def request_line(id: int, method: str, params: Any) -> bytes:
    """A request with its LF."""
    head = dumps(method), dumps(params), id
    return b'{"jsonrpc":"2.0","method":%b,"params":%b,"id":%d}\n' % head
