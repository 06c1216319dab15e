"""`TaskFunction`: a task as a worker serves it, and the rules for binding a caller's arguments to it."""

from __future__ import annotations

import inspect
import keyword
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any, Final

from .errors import BadArguments

_NO_POSITIONS: Final[list[Any]] = []
_NO_NAMES: Final[dict[str, Any]] = {}


class TaskFunction:
    """A served task: its function, options and the rules for binding arguments."""

    def __init__(
        self,
        function: Callable[..., Any],
        name: str | None = None,
        timeout: float | None = None,
        blocking: bool = False,
    ) -> None:
        self.function = function
        self.name: str = name or function.__name__
        self.timeout = None if timeout is None else float(timeout)
        self.blocking = blocking
        # Of durable tasks; times in seconds.
        self.retries = 0
        self.retry_delay = 5.0
        self.max_retry_delay = 600.0
        self.result_ttl = 300.0
        self.number = 0  # 1 + its position among the served tasks, for the scoreboard
        parameters = inspect.signature(function).parameters.values()
        kinds = inspect.Parameter
        positional = [
            p for p in parameters if p.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)
        ]
        by_name = [
            p for p in parameters if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)
        ]
        required = [p for p in parameters if p.default is p.empty and p.kind < kinds.VAR_POSITIONAL]
        self._names = {_wire_name(p.name): p.name for p in by_name}
        self._renamed = any(key != name for key, name in self._names.items())
        self._required = {_wire_name(p.name) for p in by_name if p.default is p.empty}
        self._surplus_names = any(p.kind is kinds.VAR_KEYWORD for p in parameters)
        self._surplus_positions = any(p.kind is kinds.VAR_POSITIONAL for p in parameters)
        self._positions = [_wire_name(p.name) for p in positional]
        self._min_positions = len(required)
        self._unreachable = [
            _wire_name(p.name)
            for p in positional
            if p.kind is kinds.POSITIONAL_ONLY and p.default is p.empty
        ]
        # Arguments of just these names, or of any that are not fewer, need no further look.
        self._plain_names = None if self._unreachable else self._names.keys()
        self._takes_any_names = self._surplus_names and not self._unreachable
        self._can_be_ordered = self._positions == [*self._names] and _is_plain(function)
        self._max_positions = sys.maxsize if self._surplus_positions else len(positional)
        self._needs_names = [
            _wire_name(p.name)
            for p in by_name
            if p.kind is kinds.KEYWORD_ONLY and p.default is p.empty
        ]

    def __repr__(self) -> str:
        return f"<TaskFunction {self.name}>"

    def bind(self, args: dict[str, Any] | list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """What to call the function with: positional and keyword arguments, neither to be changed.

        Raises:
            BadArguments: naming what is missing or surplus.
        """
        if type(args) is not dict:
            if not self._min_positions <= len(args) <= self._max_positions or self._needs_names:
                self._check_positions(args)
            return args, _NO_NAMES  # type: ignore[return-value]
        if self._can_be_ordered:  # by position they are passed on at half of the cost
            values = []
            for name in self._positions:
                if name not in args:
                    break
                values.append(args[name])
            if len(values) == len(args) and len(values) >= self._min_positions:
                return values, _NO_NAMES
        names = args.keys()
        if names != self._plain_names and not (self._takes_any_names and names >= self._required):
            self._check_names(args)
        if self._renamed:
            args = {self._names.get(key, key): value for key, value in args.items()}
        return _NO_POSITIONS, args

    def _check_names(self, args: dict[str, Any]) -> None:
        missing = [
            *self._unreachable,
            *(n for n in self._names if n in self._required - args.keys()),
        ]
        surplus = [] if self._surplus_names else [n for n in args if n not in self._names]
        self._refuse(missing, surplus)

    def _check_positions(self, args: list[Any] | dict[str, Any]) -> None:
        missing = self._positions[len(args) : self._min_positions] + self._needs_names
        many = len(args) > len(self._positions) and not self._surplus_positions
        surplus = [f"argument {i + 1}" for i in range(len(self._positions), len(args))]
        self._refuse(missing, surplus[:10] if many else [])

    def _refuse(self, missing: list[str], surplus: list[str]) -> None:
        if missing or surplus:
            problems = [
                f"{what} {', '.join(names)}"
                for what, names in (("missing", missing), ("unexpected", surplus))
                if names
            ]
            raise BadArguments(
                f"{self.name}: {'; '.join(problems)}", {"missing": missing, "unexpected": surplus}
            )


def _is_plain(function: Callable[..., Any]) -> bool:
    """It has the signature that it shows; a wrapper may show another's, and want all by name."""
    return type(function) is FunctionType and not (
        hasattr(function, "__wrapped__") or hasattr(function, "__signature__")
    )


def _wire_name(parameter: str) -> str:
    """`from_` is called `from` on the wire: only Python's keywords need the underscore."""
    bare = parameter[:-1]
    return bare if parameter.endswith("_") and keyword.iskeyword(bare) else parameter
