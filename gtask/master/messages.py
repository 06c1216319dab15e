"""What molds and workers tell the master: JSON, checked for its shape before anybody believes it.

A task can write to any descriptor of its process. So no field is used before its type and range are
known, and texts that end up in a log are shortened and have no control characters.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 262144  # what is longer is cut by the kernel, and then no JSON
TEXT_LENGTH = 500  # characters of a reason; of a problem, four times as many
MAX_PID = 2**22  # PID_MAX_LIMIT, proc_sys_kernel(5)
MAX_ROW = 2**16
MAX_COUNT = 2**63

# The fields of a connection that `connections` shows; others may be there, too.
CONNECTION_NUMBERS = ("outstanding", "bytes_read", "bytes_written", "send_buffer", "idle_seconds")
CONNECTION_TEXTS = ("peer", "protocol")


class BadMessage(ValueError):
    """It is none of the messages; the text says in what."""


# From a mold, on its own channel.


@dataclass(frozen=True)
class Loaded:
    """The code is loaded; the names that each service's scoreboard holds the numbers of."""

    functions: Mapping[str, list[str]]


@dataclass(frozen=True)
class NotLoaded:
    """The code cannot be loaded; `code` is the exit code of a program that cannot start for it."""

    problems: list[str]
    code: int


@dataclass(frozen=True)
class Spawned:
    """The worker asked for at that row has been forked."""

    service: str
    row: int
    pid: int


@dataclass(frozen=True)
class NotSpawned:
    """It could not be forked."""

    service: str
    row: int
    reason: str


# From a worker, about itself.


@dataclass(frozen=True)
class FromWorker:
    """What each of them says of its sender: it must be true."""

    pid: int
    row: int


@dataclass(frozen=True)
class Ready(FromWorker):
    """It accepts connections."""


@dataclass(frozen=True)
class CannotBoot(FromWorker):
    """It is about to end before it was ready."""

    reason: str


@dataclass(frozen=True)
class Recycle(FromWorker):
    """It wants to be replaced."""

    reason: str


@dataclass(frozen=True)
class Connections(FromWorker):
    """A part of its connections."""

    connections: list[dict[str, Any]]
    first: bool
    last: bool


MoldMessage = Loaded | NotLoaded | Spawned | NotSpawned
WorkerMessage = Ready | CannotBoot | Recycle | Connections


def read_mold_message(data: bytes) -> MoldMessage:
    """Read what has come on a mold's channel.

    Raises:
        BadMessage: it is none of the messages.
    """
    message = _object(data)
    match message.get("event"):
        case "loaded":
            return Loaded(_field(message, "functions", _functions))
        case "failed" if "problems" in message:
            return NotLoaded(_field(message, "problems", _problems), _integer(message, "code", 256))
        case "failed":
            return NotSpawned(*_place(message), _field(message, "reason", _text))
        case "spawned":
            return Spawned(*_place(message), _integer(message, "pid", MAX_PID, least=1))
    raise BadMessage("an unknown event")


def read_worker_message(data: bytes) -> WorkerMessage:
    """Read what has come on the channel of a generation's workers.

    Raises:
        BadMessage: it is none of the messages.
    """
    message = _object(data)
    who = _integer(message, "pid", MAX_PID, least=1), _integer(message, "row", MAX_ROW)
    match message.get("event"):
        case "ready":
            return Ready(*who)
        case "failed":
            return CannotBoot(*who, _field(message, "reason", _text))
        case "recycle":
            return Recycle(*who, _field(message, "reason", _text))
        case "connections":
            flags = [_field(message, key, _flag) for key in ("first", "last")]
            return Connections(*who, _field(message, "connections", _connections), *flags)
    raise BadMessage("an unknown event")


def in_one_line(text: str, length: int = TEXT_LENGTH) -> str:
    """A text for the log: shortened, and what is no printable character is escaped.

    >>> in_one_line("a\\nb" + 9 * "c", 6)
    'a\\\\nbccc...'
    """
    cut = text[:length] + "..." * (len(text) > length)
    if cut.isprintable():
        return cut
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in cut)


def _object(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        raise BadMessage("no JSON") from None
    if not isinstance(message, dict):
        raise BadMessage("no object")
    return message


def _field(message: dict[str, Any], key: str, read: Callable[[Any], Any]) -> Any:
    value = read(message.get(key))
    if value is None:
        raise BadMessage(f"a wrong {key!r}")
    return value


def _integer(message: dict[str, Any], key: str, limit: int, *, least: int = 0) -> int:
    value = message.get(key)
    if type(value) is not int or not least <= value < limit:
        raise BadMessage(f"a wrong {key!r}")
    return value


def _place(message: dict[str, Any]) -> tuple[str, int]:
    """The service's name as it is, since it is only compared; and the row."""
    service = message.get("service")
    if not isinstance(service, str):
        raise BadMessage("a wrong 'service'")
    return service, _integer(message, "row", MAX_ROW)


# Each of these returns None for what it cannot be.


def _text(value: Any) -> str | None:
    return in_one_line(value) if isinstance(value, str) else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _problems(value: Any) -> list[str] | None:
    if not _is_list_of(value, str) or not value:
        return None
    return [in_one_line(problem, 4 * TEXT_LENGTH) for problem in value]


def _functions(value: Any) -> dict[str, list[str]] | None:
    if not isinstance(value, dict) or not all(_is_list_of(names, str) for names in value.values()):
        return None
    return {service: [in_one_line(name) for name in names] for service, names in value.items()}


def _connections(value: Any) -> list[dict[str, Any]] | None:
    if not _is_list_of(value, dict) or not all(map(_is_connection, value)):
        return None
    return [
        {key: in_one_line(one) if isinstance(one, str) else one for key, one in connection.items()}
        for connection in value
    ]


def _is_connection(value: dict[str, Any]) -> bool:
    return (
        all(isinstance(value.get(key), str) for key in CONNECTION_TEXTS)
        and all(_is_number(value.get(key)) for key in CONNECTION_NUMBERS)
        and all(isinstance(one, str) or one is None or _is_number(one) for one in value.values())
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and -MAX_COUNT < value < MAX_COUNT


def _is_list_of(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)
