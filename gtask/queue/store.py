"""The interface of every store: operations in, outcomes out, and nothing is told before it is safe.

A store is used by one native thread at a time and knows nothing of sockets or greenlets. What is kept by
a server instead of a file has the same interface: its operations become one script each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .operations import Operation
from .records import Applied

BATCH = 500  # operations that are made safe together, at most


class Store(Protocol):
    """A place where tasks survive."""

    def apply(self, operations: Sequence[Operation]) -> Applied:
        """Do all of it, and return when it is safe.

        An operation that is refused has its error as its outcome, and the others are done.

        Raises:
            StoreUnavailable: nothing is done; or it is not known whether it is, if `data` says so.
        """
        ...

    def close(self) -> None:
        """Let the store go; another may take it."""
