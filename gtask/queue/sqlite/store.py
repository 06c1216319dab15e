"""`SqliteStore`: the interface of stores, on one file, for the holder of its lock."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any

from ...errors import BadArguments, TaskError
from .. import operations as ops
from ..records import Applied, Limits
from . import claims, ends, puts, reading, upkeep
from .files import inode, unavailable
from .ledger import Ledger
from .schema import connect, translated
from .session import Session

CHECKPOINT_PAGES = 3000  # of the log, about, from which on it is copied into the database
PAGES_EACH = 3  # that a change of a row writes, about, and a transaction beyond its changes


def wall_ms() -> int:
    """Milliseconds of the unix clock."""
    return time.time_ns() // 1_000_000


class SqliteStore:
    """A store's file, opened after its lock was taken.

    Args:
        path: of the file, which is made if there is none.
        mode: of a file that is made.
        clock: milliseconds of the unix clock.

    Raises:
        StoreUnavailable: it cannot be used.
    """

    def __init__(
        self,
        path: str,
        *,
        mode: int = 0o600,
        limits: Limits | None = None,
        clock: Callable[[], int] = wall_ms,
    ) -> None:
        self.path = os.path.realpath(path)
        self._limits = limits or Limits()
        self._clock = clock
        self._next_at: int | None = 0  # everything may be due
        self._connection = connect(self.path, mode)
        self._inode = inode(self.path)
        self._changes = self._pages = 0
        try:
            self._ledger = Ledger(self._connection)
        except sqlite3.Error as error:
            self._connection.close()
            raise translated(error) from error

    def apply(self, operations: Sequence[ops.Operation]) -> Applied:
        """See `Store.apply`."""
        self._refuse_if_moved("no")
        session = Session(self._connection, self._ledger, self._limits, self._clock())
        try:
            session.execute("BEGIN IMMEDIATE")
            try:
                outcomes = self._do(session, operations)
                self._ledger.write()
            except BaseException:
                self._roll_back()
                raise
            self._commit()
        except sqlite3.Error as error:
            raise translated(error) from error
        self._refuse_if_moved("unknown")
        if session.next_at is not None and (
            self._next_at is None or session.next_at < self._next_at
        ):
            self._next_at = session.next_at
        ready = {
            queue.name: queue.ready
            for queue in self._ledger.by_number.values()
            if queue.ready and not queue.is_paused
        }
        return Applied(outcomes, session.finished, ready, self._next_at)

    def _do(self, session: Session, operations: Sequence[ops.Operation]) -> list[Any]:
        if self._next_at is not None and session.now >= self._next_at:
            self._next_at = None
            upkeep.upkeep(session)
        outcomes: list[Any] = []
        for operation in operations:
            try:
                outcomes.append(_DO[type(operation)](session, operation))
            except TaskError as error:
                outcomes.append(error)
        return outcomes

    def _commit(self) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise translated(error, "unknown") from error

    def _roll_back(self) -> None:
        """Be as before the transaction, what is known by heart included."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        self._ledger.load()
        self._next_at = 0

    def _refuse_if_moved(self, accepted: str) -> None:
        if inode(self.path) != self._inode:
            message = f"{self.path}: another file has its name, or none"
            raise unavailable("moved", message, accepted)

    def tidy(self) -> None:
        """Between two transactions: copy the log into the database if it has grown.

        Only the holder of the lock does that, by its only connection.

        Raises:
            StoreUnavailable: it cannot be done now.
        """
        # The log's file does not shrink when it is begun anew, so its size tells nothing; and its
        # index must not be opened here, as its locks would go with the descriptor, fcntl(2).
        changes = self._connection.total_changes
        self._pages += PAGES_EACH * (1 + changes - self._changes)
        self._changes = changes
        if self._pages >= CHECKPOINT_PAGES:
            self._pages = 0
            try:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            except sqlite3.Error as error:
                raise translated(error) from error

    def close(self) -> None:
        """Close the file, still under the lock: the last one to close copies the log."""
        self._connection.close()


def write_copy(path: str, target: str) -> TaskError | int:
    """Write a copy of the whole store, as it is now, to a new file; under the store's lock.

    It has a connection of its own, which only reads, so that a store in use goes on meanwhile.

    Returns:
        The size of the copy in bytes, or the error.
    """
    try:
        fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        return BadArguments(f"{target}: {error.strerror}")
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        try:
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute("VACUUM INTO ?", (target,))
        finally:
            connection.close()
        os.fsync(fd)
        return os.fstat(fd).st_size
    except sqlite3.Error as error:
        return translated(error)
    finally:
        os.close(fd)


_DO: dict[type, Callable[[Session, Any], Any]] = {
    ops.Put: puts.put,
    ops.Look: reading.look,
    ops.Result: reading.result,
    ops.Cancel: puts.cancel,
    ops.Join: claims.join,
    ops.Claim: claims.claim,
    ops.End: ends.end,
    ops.Release: ends.release,
    ops.Holdings: lambda session, _: reading.holdings(session),
    ops.Upkeep: lambda session, _: upkeep.upkeep(session),
    ops.Counts: lambda session, _: reading.counts(session),
    ops.Listing: reading.listing,
    ops.Retry: puts.retry,
    ops.Purge: upkeep.purge,
    ops.Pause: puts.pause,
    ops.CronSeen: puts.cron_seen,
    ops.CronDone: puts.cron_done,
    ops.Check: lambda session, _: reading.check(session),
}
