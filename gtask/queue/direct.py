"""A store without its process: a program takes the lock, does one thing, and lets go.

So a put works while no worker runs. It blocks the native thread: a loop's program does this in another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import TaskError
from ..protocols.messages import LOOSE, Call
from .desk import Desk
from .operations import Operation
from .sqlite.files import StoreLock
from .sqlite.store import SqliteStore, write_copy

BUSY: Any = object()  # another holds the lock


class _Gathered:
    """Operations that are applied together at the end."""

    def __init__(self) -> None:
        self._asked: list[tuple[Operation, Callable[[Any], None]]] = []

    def submit(self, operation: Operation, then: Callable[[Any], None]) -> None:
        self._asked.append((operation, then))

    def apply(self, store: SqliteStore) -> None:
        applied = store.apply([operation for operation, _ in self._asked])
        for (_, then), outcome in zip(self._asked, applied.outcomes, strict=True):
            then(outcome)


def ask_directly(path: str, mode: int, function: str, params: dict[str, Any]) -> Any:
    """What the process of the store would answer; `BUSY` if another writes now.

    Args:
        mode: of files that are made.

    Returns:
        The `TaskError`, too, as gevent's pool of threads prints what is raised in it.
    """
    lock = StoreLock(path, mode)
    try:
        if not lock.take():
            return BUSY
        store = SqliteStore(path, mode=mode)
        try:
            return _ask(store, function, params)
        finally:
            store.close()
    except TaskError as error:
        return error
    finally:
        lock.release()


def _ask(store: SqliteStore, function: str, params: dict[str, Any]) -> Any:
    asks = _Gathered()
    desk = Desk(
        None,
        asks,
        lambda owner, fence: None,
        lambda path, answer: answer(write_copy(store.path, path)),
    )
    answers: list[Any] = []
    params.pop("wait", None)  # nobody would end the wait
    desk.answer(Call(function, params, None, LOOSE, False), answers.append)
    asks.apply(store)
    return answers[0]
