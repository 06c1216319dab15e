"""`InlineQueue`: durable tasks in a test's own process; a real store, and no other process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import BadArguments, Reject, Retry, TaskError, TaskFailed
from ..protocols.jsontext import dumps, loads
from ..store_address import parse_store
from .operations import Claim, End, Join, Operation
from .owners import own_identity
from .records import Dealt, Terms
from .sqlite.files import StoreLock
from .sqlite.store import SqliteStore
from .states import Event

LOCK_SECONDS = 5.0


class InlineQueue:
    """A store in a folder; whoever puts uses its URL.

    Args:
        url: ``sqlite:///PATH?queue=NAME``.
        terms: of each function that can be run, by name.
        call: runs one of them: name, arguments, and what it can know of itself.

    Attributes:
        url: for `Queue`.
    """

    def __init__(
        self,
        url: str,
        terms: dict[str, Terms],
        call: Callable[[str, Any, Dealt], Any],
    ) -> None:
        self.url = url
        self._address = parse_store(url)
        self._terms = terms
        self._call = call

    def run(self) -> int:
        """Run what is due, and what that puts, in this process; returns how many runs that were."""
        runs = 0
        while dealt := self._claim():
            self._apply(self._run(dealt))
            runs += 1
        return runs

    def _claim(self) -> Dealt | None:
        owner = self._apply(Join(own_identity()))
        dealt = self._apply(Claim(self._address.queue, owner, 1, self._terms))
        return dealt[0] if dealt else None

    def _run(self, dealt: Dealt) -> End:
        terms = self._terms[dealt.function]
        try:
            result = self._call(dealt.function, loads(dealt.args), dealt)
            return End(dealt.seq, dealt.fence, Event.RETURNED, dumps(result), terms=terms)
        except Exception as error:  # the edge to user code
            event, after_ms = _event_of(error)
            told = error if isinstance(error, TaskError) else TaskFailed(str(error))
            outcome = dumps(told.as_dict())
            return End(dealt.seq, dealt.fence, event, outcome, after_ms, terms)

    def _apply(self, operation: Operation) -> Any:
        """The lock is let go between two steps, as the task itself may put."""
        lock = StoreLock(self._address.path, 0o600)
        if not lock.wait(LOCK_SECONDS):
            raise RuntimeError(f"{self.url} is in use by another process")
        try:
            store = SqliteStore(self._address.path)
            try:
                (outcome,) = store.apply([operation]).outcomes
            finally:
                store.close()
        finally:
            lock.release()
        return outcome


def _event_of(error: Exception) -> tuple[Event, int | None]:
    cause = error.__cause__ if isinstance(error, TaskFailed) else error
    if isinstance(cause, Retry):
        return Event.FAILED, None if cause.after is None else int(cause.after * 1000)
    if isinstance(cause, Reject):
        return Event.REJECTED, None
    return (Event.BAD_ARGUMENTS if isinstance(error, BadArguments) else Event.FAILED), None
