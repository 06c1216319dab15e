"""`HasContext`: the user's own data on a connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any


class HasContext:
    """Not compiled: deleting a compiled property ends the process (mypyc 2.4)."""

    __slots__ = ()

    _context: Any

    @property
    def context(self) -> Any:
        if self._context is None:
            self._context = SimpleNamespace()
        return self._context

    @context.setter
    def context(self, value: Any) -> None:
        self._context = value
