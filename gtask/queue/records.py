"""What is kept of a task, and what is told of it. Times are milliseconds; moments are of the unix clock."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from ..errors import BadArguments
from .states import State

MAX_PAYLOAD_BYTES = 1024 * 1024  # of arguments, and of a result
LEAST_KEPT_MS = 60_000  # for so long at least a final record is kept
DEAD_KEPT_MS = 30 * 86_400_000
MAX_SECONDS = 1e9  # that any option may hold, about 30 years

_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Priority(IntEnum):
    """Who is looked at first; the numbers are stored."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


PRIORITIES = {priority.name.lower(): priority for priority in Priority}


@dataclass(frozen=True)
class NewTask:
    """A task as it is put; what is None is as its function says.

    Attributes:
        args: JSON.
        delay_ms: until it may begin.
        expires_ms: after the put, past which it does not begin.
    """

    id: str
    function: str
    args: bytes
    key: str | None = None
    delay_ms: int = 0
    priority: Priority = Priority.NORMAL
    expires_ms: int | None = None
    retries: int | None = None
    timeout_ms: int | None = None
    result_ttl_ms: int | None = None


@dataclass(frozen=True)
class Terms:
    """What a function says of its tasks, where a put says nothing."""

    retries: int = 0
    retry_delay_ms: int = 5_000
    max_retry_delay_ms: int = 600_000
    result_ttl_ms: int = 300_000
    timeout_ms: int = 60_000

    @classmethod
    def from_seconds(cls, terms: list[Any]) -> Terms:
        """From what a worker tells: retries, then times in seconds, in the order of the fields."""
        retries, *times = terms
        return cls(int(retries), *(int(seconds * 1000) for seconds in times))


@dataclass(frozen=True)
class Dealt:
    """A task that was claimed for a process.

    Attributes:
        seq: the store's number of its record.
        fence: of this start.
        args: JSON.
        timeout_ms: of this run; 0 is no limit.
        is_suspect: it was lost twice.
    """

    seq: int
    fence: int
    id: str
    function: str
    args: bytes
    attempt: int
    deliveries: int
    enqueued_at: int
    timeout_ms: int
    is_suspect: bool


@dataclass(frozen=True)
class Found:
    """A task with its outcome: the JSON of its result or of its error, where it is final."""

    id: str
    state: State
    outcome: bytes | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Identity:
    """Which process of which start of a machine; two processes never have the same."""

    boot_id: str
    pid_namespace: str
    pid: int
    start_time: int


@dataclass(frozen=True)
class Limits:
    """What a store takes; past these a put is refused as `QueueFull`."""

    max_waiting: int = 1_000_000
    max_bytes: int = 4 * 1024**3
    max_payload_bytes: int = MAX_PAYLOAD_BYTES
    max_dead: int = 100_000


@dataclass
class Applied:
    """What a store has done.

    Attributes:
        outcomes: of each operation, in their order; a `TaskError` where it was refused.
        finished: queue and id of each task that has become final.
        ready: how many tasks each queue that is not paused could deal now.
        next_at: when something is due, in milliseconds of the store's clock; None: nothing is.
    """

    outcomes: list[Any] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    ready: dict[str, int] = field(default_factory=dict)
    next_at: int | None = None


def new_id() -> str:
    """An id that nobody else makes; later ones sort after earlier ones."""
    return f"{time.time_ns() // 1_000_000:012x}{os.urandom(8).hex()}"


def checked_id(id: Any) -> str:
    """`id`, if it may be one.

    Raises:
        BadArguments: it may not.
    """
    if type(id) is not str or not _ID.fullmatch(id):
        raise BadArguments("id must be 1 to 128 of A-Z a-z 0-9 . _ : -")
    return id


OPTIONS = ("id", "key", "delay", "priority", "expires", "retries", "timeout", "result_ttl")


def new_task(function: Any, args: bytes, options: Any) -> NewTask:
    """A task from what a caller gives.

    Args:
        args: JSON of an object or an array.
        options: of the wire; times in seconds.

    Raises:
        BadArguments: naming what is wrong.
    """
    if type(function) is not str or not 0 < len(function) <= 200:
        raise BadArguments("function must be the name of a task, of at most 200 characters")
    if len(args) > MAX_PAYLOAD_BYTES:
        raise BadArguments(f"args: {len(args)} bytes, at most {MAX_PAYLOAD_BYTES} are taken")
    if not options:
        return NewTask(new_id(), function, args)
    if type(options) is not dict or options.keys() - set(OPTIONS):
        raise BadArguments(f"options may hold {', '.join(OPTIONS)}")
    given = options.get("id")
    delay, expires = _ms(options, "delay") or 0, _ms(options, "expires")
    if expires is not None and delay >= expires:
        raise BadArguments("delay must be less than expires")
    return NewTask(
        new_id() if given is None else checked_id(given),
        function,
        args,
        _key(options.get("key")),
        delay,
        _priority(options.get("priority")),
        expires,
        _retries(options.get("retries")),
        _ms(options, "timeout"),
        _ms(options, "result_ttl"),
    )


def _ms(options: dict[str, Any], name: str) -> int | None:
    value = options.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value < MAX_SECONDS:
        raise BadArguments(f"{name} must be a number of seconds, 0 or more")
    return int(value * 1000)


def _key(key: Any) -> str | None:
    if key is not None and (type(key) is not str or not 0 < len(key) <= 200):
        raise BadArguments("key must be a text of at most 200 characters")
    return key


def _priority(name: Any) -> Priority:
    if name is None:
        return Priority.NORMAL
    if type(name) is not str or name not in PRIORITIES:
        raise BadArguments("priority must be high, normal or low")
    return PRIORITIES[name]


def _retries(retries: Any) -> int | None:
    if retries is not None and (type(retries) is not int or not 0 <= retries <= 1_000_000):
        raise BadArguments("retries must be a whole number, 0 or more")
    return retries
