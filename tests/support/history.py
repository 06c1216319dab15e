"""A history of calls and their ends, and what must hold of it whatever happened in between."""

from __future__ import annotations

from collections import Counter
from typing import Any


class History:
    """Every call is to be recorded when it is made, and each of its ends when it comes.

    A call's result must be what its key says: callers send the key and expect it back. What has
    ended once and rightly is only counted, so that a long history takes no memory.

    Attributes:
        outcomes: how many calls ended how: "ok", or the name of the error's class.
    """

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self._open: set[Any] = set()
        self._problems: list[str] = []

    def invoke(self, key: Any) -> None:
        self._open.add(key)

    def ok(self, key: Any, result: Any) -> None:
        if result != key:
            self._problems.append(f"{key}: got the result {result!r}")
        self._end(key, "ok")

    def fail(self, key: Any, error: BaseException) -> None:
        self._end(key, type(error).__name__)

    def _end(self, key: Any, how: str) -> None:
        if key in self._open:
            self._open.remove(key)
        else:
            self._problems.append(f"{key}: ended a second time, or was never made: {how}")
        self.outcomes[how] += 1

    def check(self) -> list[str]:
        """What is wrong: a call without end, with two, with another's result, or never made."""
        return self._problems + [f"{key}: has no end" for key in self._open]
