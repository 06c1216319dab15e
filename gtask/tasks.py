"""Tasks: marking functions with `@task`, finding them, binding a caller's arguments to them.

Knows nothing of sockets or greenlets. Only functions that are marked can ever be called by a peer.
"""

from __future__ import annotations

import inspect
import keyword
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any, Protocol, TypeVar, overload

from .errors import BadArguments, ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_MARK = "__gtask__"
_RESERVED = ("gtask.", "rpc.")


@dataclass(frozen=True)
class TaskMark:
    """What `@task` leaves on a function.

    Attributes:
        name: the name peers call; None is the function's own.
        timeout: soft time limit in seconds; None is the service's `task_timeout`, 0 is none.
        blocking: run in a native thread, because the function blocks without yielding.
    """

    name: str | None = None
    timeout: float | None = None
    blocking: bool = False


@overload
def task(function: F, /) -> F: ...


@overload
def task(
    *, name: str | None = None, timeout: float | None = None, blocking: bool = False
) -> Callable[[F], F]: ...


def task(
    function: Any = None,
    /,
    *,
    name: Any = None,
    timeout: Any = None,
    blocking: Any = False,
) -> Any:
    """Mark a function as a task; it stays callable as before.

    Args:
        name: the name peers call, by default the function's own.
        timeout: seconds after which `TaskTimeout` is raised inside the task and its caller is
            told so; by default the service's `task_timeout`; 0 is no limit.
        blocking: run it in a native thread: for C code that blocks without yielding. Its time
            limit answers the caller, but cannot stop the thread.

    Raises:
        TypeError, ValueError: the mark makes no sense, e.g. on an `async def`.
    """
    if timeout is not None and not (
        isinstance(timeout, int | float) and 0 <= timeout < float("inf")
    ):
        raise ValueError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if name is not None and (not isinstance(name, str) or not name or name.startswith(_RESERVED)):
        raise ValueError(f"{name!r} cannot be the name of a task")

    def mark(function: F) -> F:
        if not callable(function) or isinstance(function, type):
            raise TypeError(f"@task marks functions, not {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"@task {function.__name__}: a plain function is needed")
        setattr(function, _MARK, TaskMark(name, timeout, blocking))
        return function

    return mark if function is None else mark(function)


class TaskFunction:
    """A served task: its function, options and the rules for binding arguments."""

    def __init__(self, function: Callable[..., Any], mark: TaskMark) -> None:
        self.function = function
        self.name: str = mark.name or function.__name__
        self.timeout = mark.timeout
        self.blocking = mark.blocking
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
        # Arguments of just these names can be passed on as they are.
        self.plain_names = None if self._renamed or self._unreachable else self._names.keys()
        # All of them, in this order, may be passed by position, which is cheaper.
        in_order = self._positions == [*self._names] and _is_plain(function)
        self.order = tuple(self._positions) if in_order else None
        self._needs_names = [
            _wire_name(p.name)
            for p in by_name
            if p.kind is kinds.KEYWORD_ONLY and p.default is p.empty
        ]

    def __repr__(self) -> str:
        return f"<TaskFunction {self.name}>"

    def bind(self, args: dict[str, Any] | list[Any]) -> tuple[list[Any], dict[str, Any]]:
        """What to call the function with: positional and keyword arguments.

        Raises:
            BadArguments: naming what is missing or surplus.
        """
        if type(args) is dict:
            if args.keys() != self.plain_names:
                self._check_names(args)
            if self._renamed:
                args = {self._names.get(key, key): value for key, value in args.items()}
            return [], args
        self._check_positions(args)
        return args, {}  # type: ignore[return-value]

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


def find_tasks(modules: Iterable[ModuleType]) -> dict[str, TaskFunction]:
    """The marked functions of `modules`, by the name that peers call.

    Raises:
        ConfigError: a module has none, or two functions have the same name.
    """
    found: dict[str, TaskFunction] = {}
    problems = []
    for module in modules:
        marked = [f for f in vars(module).values() if isinstance(_mark_of(f), TaskMark)]
        if not marked:
            problems.append(f"module {module.__name__} has no function marked with @task")
        for function in marked:
            candidate = TaskFunction(function, _mark_of(function))
            other = found.setdefault(candidate.name, candidate)
            if other.function is not function:
                problems.append(
                    f"module {module.__name__}: task {candidate.name!r} is also defined"
                    f" in module {other.function.__module__}"
                )
    if problems:
        raise ConfigError(problems)
    return found


def _mark_of(value: Any) -> Any:
    try:
        return getattr(value, _MARK, None)
    except Exception:  # a lazy object of the user's module, e.g. flask.request
        return None


class CurrentTask(Protocol):
    """What a task can know of its own call, and tell its caller.

    Attributes:
        id: the id its caller gave, or None.
        deadline: when its time limit passes, in `time.monotonic` seconds, or None.
        peer: the caller's address, e.g. ``127.0.0.1:51234``.
    """

    @property
    def id(self) -> str | int | None: ...

    @property
    def deadline(self) -> float | None: ...

    @property
    def peer(self) -> str: ...

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller how far the task is; costs nothing when the caller did not ask."""
        ...


class _NoTask:
    """The current task of code that was called plainly, e.g. by a unit test."""

    id = None
    deadline = None
    peer = ""

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Nobody listens."""


_NO_TASK: CurrentTask = _NoTask()
running_task: ContextVar[Callable[[], CurrentTask] | None] = ContextVar(
    "gtask.running_task", default=None
)


def current_task() -> CurrentTask:
    """The task that runs this code; outside of one, a stand-in whose `progress` does nothing."""
    find = running_task.get()
    return _NO_TASK if find is None else find()
