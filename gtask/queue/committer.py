"""`Committer`: between an event loop and a store, which blocks; commits what has gathered.

While one batch is being made safe in a native thread, what is asked for meanwhile gathers for the
next: no timer, and the busier it is, the more share one write to the disk.
"""

from __future__ import annotations

from _queue import SimpleQueue
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from .. import native
from ..errors import StoreUnavailable
from ..logs.loggers import get_logger
from .operations import Claim, Operation
from .records import Applied
from .store import BATCH, Store

log = get_logger(__name__)

REOPEN = ("corrupt", "unreachable")  # reasons for which the file is opened anew

Then = Callable[[Any], None]
Asked = tuple[Operation, Then]


class TidyStore(Store, Protocol):
    """A store that has something to do between two batches."""

    def tidy(self) -> None: ...


class Listener(Protocol):
    """Who is told how it goes, in the loop."""

    def applied(self, applied: Applied, has_news: bool) -> None:
        """A batch is safe; it held more than claims if `has_news`."""

    def failed(self, error: StoreUnavailable) -> None:
        """A batch could not be applied."""


class Committer:
    """Applies operations; each is told its outcome, or the `StoreUnavailable` that it had instead.

    Args:
        loop: gevent's.
        open_store: opens the file; called in the native thread.
    """

    def __init__(self, loop: Any, open_store: Callable[[], TidyStore], listener: Listener) -> None:
        self._loop = loop
        self._open_store = open_store
        self._listener = listener
        self._gathered: deque[Asked] = deque()
        self._batches: SimpleQueue[list[Asked] | None] = SimpleQueue()
        self._is_busy = False
        self._store: TidyStore | None = None  # the thread's
        self._has_ended = native.allocate_lock()
        self._has_ended.acquire()
        native.start_thread(self._run, ())

    def submit(self, operation: Operation, then: Then) -> None:
        """Have it applied; `then` gets the outcome, in the loop. Loop only."""
        self._gathered.append((operation, then))
        if not self._is_busy:
            self._is_busy = True
            # What else comes in this turn of the loop goes along.
            self._loop.run_callback(self._hand_over)

    @property
    def is_idle(self) -> bool:
        """Nothing is asked for and nothing is being done."""
        return not self._is_busy

    def close(self) -> None:
        """Let the store go; blocks until that is done."""
        self._batches.put(None)
        self._has_ended.acquire()

    # -- in the loop --------------------------------------------------------------------------

    def _hand_over(self) -> None:
        gathered = self._gathered
        batch = [gathered.popleft() for _ in range(min(BATCH, len(gathered)))]
        self._batches.put(batch)

    def _done(self, batch: list[Asked], applied: Applied | StoreUnavailable) -> None:
        if isinstance(applied, StoreUnavailable):
            outcomes: list[Any] = [applied] * len(batch)
        else:
            outcomes = applied.outcomes
        for (_, then), outcome in zip(batch, outcomes, strict=True):
            try:
                then(outcome)
            except Exception:  # the others' outcomes must not be lost with it
                log.exception("an outcome could not be told")
        if isinstance(applied, StoreUnavailable):
            self._listener.failed(applied)
        else:
            has_news = any(type(operation) is not Claim for operation, _ in batch)
            self._listener.applied(applied, has_news)
        if self._gathered:
            self._hand_over()
        else:
            self._is_busy = False

    # -- in the native thread -----------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            applied = self._apply([operation for operation, _ in batch])
            self._loop.run_callback_threadsafe(self._done, batch, applied)
            self._tidy()
        self._close()
        self._has_ended.release()

    def _apply(self, operations: list[Operation]) -> Applied | StoreUnavailable:
        try:
            if self._store is None:
                self._store = self._open_store()
            return self._store.apply(operations)
        except StoreUnavailable as error:
            if error.data["reason"] in REOPEN:
                self._close()
            return error
        except Exception as error:  # ours; nobody may wait for ever for it
            log.exception("the store has failed")
            self._close()
            data = {"reason": "corrupt", "accepted": "unknown"}
            return StoreUnavailable(f"the store has failed: {type(error).__name__}", data)

    def _tidy(self) -> None:
        if self._store is not None:
            try:
                self._store.tidy()
            except StoreUnavailable as error:
                log.debug("cannot tidy up now: %s", error.message)

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            try:
                store.close()
            except Exception:
                log.exception("the store could not be closed")
