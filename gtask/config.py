"""Configuration: INI text in, frozen settings out, with everything that is wrong told at once.

The settings of a service and their rules are one table, `ServiceSettings`; an INI section and the
keyword arguments of `Worker` are read by the same code.
"""

from __future__ import annotations

import configparser
import difflib
import grp
import ipaddress
import math
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from .address import Address, parse_address
from .errors import ConfigError

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class _Wrong(ValueError):
    """A value that cannot be; the message says why, without naming the key."""


# -- how a value is read: each takes INI text or what a program passed, and returns the value -----


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _Wrong(f"expected text, not {value!r}")
    return value.strip()


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (
            tuple(re.split(r"[,\s]+", value.strip(", \t\r\n"))) if value.strip(", \t\r\n") else ()
        )
    if isinstance(value, Iterable):
        names = tuple(value)
        if all(isinstance(name, str) for name in names):
            return names
    raise _Wrong(f"expected names, not {value!r}")


def _integer(least: int, most: int = 2**53) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]+", value.strip()):
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            upper = "" if most == 2**53 else f" and at most {most}"
            raise _Wrong(f"expected a whole number of at least {least}{upper}, not {value!r}")
        return value

    return read


def _seconds(value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < 1e9:
        raise _Wrong(f"expected a number of seconds, 0 or more, not {value!r}")
    return number


def _count(value: Any) -> int:
    text = str(value).strip().lower()
    cores = os.cpu_count() or 1
    if text == "auto":
        return cores
    if match := re.fullmatch(r"([0-9]+)x", text):
        return _integer(1, 1000)(int(match[1]) * cores)
    try:
        return _integer(1, 1000)(value)
    except _Wrong:
        raise _Wrong(
            f'expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not {value!r}'
        ) from None


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    try:
        return parse_address(_text(value))
    except ValueError as error:
        raise _Wrong(str(error)) from None


def _networks(value: Any) -> tuple[IpNetwork, ...]:
    networks = []
    for item in re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else value:
        if item == "":
            continue
        try:
            networks.append(ipaddress.ip_network(item))
        except ValueError:
            raise _Wrong(f"{item!r} is no network, expected e.g. 10.0.0.0/8 or 127.0.0.1") from None
    return tuple(networks)


def _file(value: Any) -> str:
    path = _text(value)
    if path and not os.path.isfile(path):
        raise _Wrong(f"there is no file {path}")
    return path


def _user(value: Any) -> str:
    name = _text(value)
    try:
        if name:
            pwd.getpwnam(name)
    except KeyError:
        raise _Wrong(f"there is no user {name!r}") from None
    return name


def _group(value: Any) -> str:
    name = _text(value)
    try:
        if name:
            grp.getgrnam(name)
    except KeyError:
        raise _Wrong(f"there is no group {name!r}") from None
    return name


def _mode(value: Any) -> int:
    if isinstance(value, str):
        if not re.fullmatch(r"(0o)?[0-7]{1,4}", value.strip()):
            raise _Wrong(f"expected an octal mode, e.g. 660, not {value!r}")
        value = int(value, 8)
    return _integer(0, 0o777)(value)


def _one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        text = _text(value).lower()
        if text not in choices:
            raise _Wrong(f"expected {' or '.join(choices)}, not {value!r}")
        return text

    return read


def _setting(read: Callable[[Any], Any], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"read": read})


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """One ``[worker:NAME]`` section (docs/configuration.md describes each key).

    Times are in seconds, sizes in bytes unless the name says MB; 0 is "none" or "never".
    """

    name: str
    listen: Address = _setting(_address)
    count: int = _setting(_count, 1)
    concurrency: int = _setting(_integer(1), 100)
    tasks: tuple[str, ...] = _setting(_names, ())
    handler: str = _setting(_text, "")
    task_timeout: float = _setting(_seconds, 60.0)
    hard_timeout: float = _setting(_seconds, 0.0)
    max_tasks: int = _setting(_integer(0), 0)
    max_rss_mb: int = _setting(_integer(0), 0)
    max_connections: int = _setting(_integer(1), 10000)
    max_frame_bytes: int = _setting(_integer(1), 10485760)
    max_batch: int = _setting(_integer(1), 100)
    max_send_buffer_bytes: int = _setting(_integer(1), 1048576)
    idle_timeout: float = _setting(_seconds, 0.0)
    certfile: str = _setting(_file, "")
    keyfile: str = _setting(_file, "")
    cafile: str = _setting(_file, "")
    allow: tuple[IpNetwork, ...] = _setting(_networks, ())
    user: str = _setting(_user, "")
    group: str = _setting(_group, "")
    origins: tuple[str, ...] = _setting(_names, ())
    backlog: int = _setting(_integer(1, 65535), 1024)
    socket_mode: int = _setting(_mode, 0o660)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The ``[gtask]`` section, and all services.

    Attributes:
        file: where it was read from; empty for a program's own `run_all`.
    """

    pid_file: str = _setting(_text, "")
    control: str = _setting(_text, "")
    log_level: str = _setting(_one_of("debug", "info", "warning", "error"), "info")
    log_file: str = _setting(_text, "")
    log_format: str = _setting(_one_of("text", "json"), "text")
    stop_timeout: float = _setting(_seconds, 30.0)
    python_path: tuple[str, ...] = _setting(_names, ())
    services: tuple[ServiceSettings, ...] = ()
    file: str = ""


def load_settings(path: str) -> Settings:
    """Read an INI file.

    Raises:
        ConfigError: all that is wrong, as ``FILE [section] key: what is wrong``.
    """
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8: {error}"]) from None
    return parse_settings(text, path)


def parse_settings(text: str, file: str = "") -> Settings:
    """Read INI text; `file` names it in messages.

    Raises:
        ConfigError: all that is wrong.
    """
    parser = configparser.ConfigParser(
        interpolation=None, delimiters=("=",), inline_comment_prefixes=(";",), default_section=""
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        parser.read_string(text, file)
    except configparser.Error as error:
        raise ConfigError([_parser_problem(error, file)]) from None
    problems: list[str] = []
    top: dict[str, Any] = {}
    services: list[ServiceSettings] = []
    for section in parser.sections():
        where = f"{file} [{section}]"
        keys = dict(parser[section])
        kind, _, name = section.partition(":")
        if section == "gtask":
            top = _read(Settings, keys, where, problems)
        elif kind == "worker" and name.strip():
            service = _read_service(name.strip(), keys, where, problems)
            if service is not None:
                services.append(service)
        else:
            problems.append(f"{where}: unknown section, expected [gtask] or [worker:NAME]")
    if not any(section.startswith("worker:") for section in parser.sections()):
        problems.append(f"{file}: there is no [worker:NAME] section, so nothing to serve")
    _check_together(services, file, problems)
    if problems:
        raise ConfigError(problems)
    return Settings(**top, services=tuple(services), file=file)


def make_service(name: str, listen: str | Address, **options: Any) -> ServiceSettings:
    """The settings of a service that a program declares; the rules are those of the INI file.

    Raises:
        TypeError: an option that does not exist.
        ConfigError: a value that cannot be.
    """
    known = _keys(ServiceSettings)
    for key in options:
        if key not in known:
            raise TypeError(f"worker {name}: {_unknown(key, known)}")
    problems: list[str] = []
    where = f"worker {name}:"
    values = _read(ServiceSettings, {"listen": listen, **options}, where, problems)
    if not problems:
        _check_pairs(values, where, problems)
    if problems:
        raise ConfigError(problems)
    return ServiceSettings(name=name, **values)


def _keys(kind: type) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(kind) if "read" in one.metadata}


def _read(kind: type, given: Mapping[str, Any], where: str, problems: list[str]) -> dict[str, Any]:
    """The values of one section; what is wrong is added to `problems`."""
    known = _keys(kind)
    values = {}
    for key, value in given.items():
        if key not in known:
            problems.append(f"{where} {_unknown(key, known)}")
            continue
        if isinstance(value, str) and not value.strip() and known[key].default is not MISSING:
            continue  # an empty value is the default
        try:
            values[key] = known[key].metadata["read"](value)
        except _Wrong as wrong:
            problems.append(f"{where} {key}: {wrong}")
    for key, one in known.items():
        if one.default is MISSING and key not in given:
            problems.append(f"{where} {key}: is missing")
    return values


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"{key}: unknown key" + (f", did you mean {close[0]}?" if close else "")


def _read_service(
    name: str, keys: dict[str, str], where: str, problems: list[str]
) -> ServiceSettings | None:
    before = len(problems)
    values = _read(ServiceSettings, keys, where, problems)
    listen = values.get("listen")
    if listen is not None:
        if listen.protocol == "text" and not values.get("tasks") and not values.get("handler"):
            problems.append(f"{where} tasks: is missing (or handler, for callbacks)")
        if listen.protocol == "websocket" and not values.get("handler"):
            problems.append(f"{where} handler: is missing, a websocket service needs one")
        if listen.protocol == "websocket" and values.get("tasks"):
            problems.append(f"{where} tasks: cannot be served by websocket, use a text service")
    if values.get("tasks") and values.get("handler"):
        problems.append(f"{where} handler: a service has tasks or a handler, not both")
    _check_pairs(values, where, problems)
    return ServiceSettings(name=name, **values) if len(problems) == before else None


def _check_pairs(values: dict[str, Any], where: str, problems: list[str]) -> None:
    for key in ("keyfile", "cafile"):
        if values.get(key) and not values.get("certfile"):
            problems.append(f"{where} {key}: needs certfile, too")


def _check_together(services: list[ServiceSettings], file: str, problems: list[str]) -> None:
    taken: dict[Any, str] = {}
    for service in services:
        sockaddr = service.listen.sockaddr
        if service.listen.port == 0 and not service.listen.is_unix:
            continue
        other = taken.setdefault(sockaddr, service.name)
        if other != service.name:
            problems.append(
                f"{file} [worker:{service.name}] listen: {service.listen} is taken by"
                f" [worker:{other}]"
            )


def _parser_problem(error: configparser.Error, file: str) -> str:
    if isinstance(error, configparser.DuplicateOptionError):
        return f"{file} [{error.section}] {error.option}: is given twice (line {error.lineno})"
    if isinstance(error, configparser.DuplicateSectionError):
        return f"{file} [{error.section}]: is there twice (line {error.lineno})"
    if isinstance(error, configparser.MissingSectionHeaderError):
        return (
            f"{file}: line {error.lineno} stands before the first [section]: {error.line.strip()}"
        )
    if isinstance(error, configparser.ParsingError) and error.errors:
        line, text = error.errors[0]
        return f"{file}: line {line} is no KEY = VALUE: {text.strip()}"
    return f"{file}: {' '.join(str(error).split())}"
