"""A history of calls and their ends, and what must hold of it whatever happened in between."""

from __future__ import annotations

from collections import Counter
from typing import Any


class History:
    """Every call is to be recorded when it is made, and each of its ends when it comes.

    A call's result must be what its key says: callers send the key and expect it back.
    """

    def __init__(self) -> None:
        self.invoked: set[Any] = set()
        self.ends: dict[Any, list[tuple[str, Any]]] = {}
        self.problems: list[str] = []

    def invoke(self, key: Any) -> None:
        if key in self.invoked:
            self.problems.append(f"{key}: made twice by the test itself")
        self.invoked.add(key)

    def ok(self, key: Any, result: Any) -> None:
        self.ends.setdefault(key, []).append(("ok", result))

    def fail(self, key: Any, error: Any) -> None:
        self.ends.setdefault(key, []).append(("fail", error))

    @property
    def outcomes(self) -> Counter[str]:
        """How many calls ended how: "ok", or the name of the error's class."""
        return Counter(
            what if what == "ok" else type(value).__name__
            for ends in self.ends.values()
            for what, value in ends
        )

    def check(self) -> list[str]:
        """What is wrong: a call without end, with two, with another's result, or never made."""
        problems = list(self.problems)
        for key in self.invoked - self.ends.keys():
            problems.append(f"{key}: has no end")
        for key, ends in self.ends.items():
            if key not in self.invoked:
                problems.append(f"{key}: a reply to a call that was never made")
            if len(ends) > 1:
                problems.append(f"{key}: ended {len(ends)} times: {ends}")
            for what, value in ends:
                if what == "ok" and value != key:
                    problems.append(f"{key}: got the result {value!r}")
        return problems
