"""`Notices`: trouble is told once when it begins or changes, again each ten minutes, and when it is over."""

from __future__ import annotations

from time import monotonic

from ..logs.loggers import Logger

AGAIN_SECONDS = 600.0


class Notices:
    """What an operator is told of one store.

    Args:
        log: where.
        store: its URL.
    """

    def __init__(self, log: Logger, store: str) -> None:
        self._log = log
        self._store = store
        self._trouble = ""
        self._told_at = 0.0

    def trouble(self, reason: str, message: str) -> None:
        """The store cannot be used; `reason` is what a change is known by."""
        now = monotonic()
        if reason != self._trouble or now - self._told_at >= AGAIN_SECONDS:
            self._trouble, self._told_at = reason, now
            self._log.error("store %s: %s", self._store, message)

    def well(self) -> None:
        """The store can be used."""
        if self._trouble:
            self._trouble = ""
            self._log.warning("store %s can be used again", self._store)
