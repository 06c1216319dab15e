"""Configuration: INI text in, frozen settings out, with everything that is wrong told at once.

The keys and their rules are two tables, `Settings` and `ServiceSettings`; an INI file and the
keyword arguments of `Worker` and `run_all` are read by the same code.
"""

from __future__ import annotations

import configparser
import difflib
import grp
import ipaddress
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any

from .address import Address, parse_address
from .errors import ConfigError

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

UNIX_PATH_BYTES = 107  # unix(7): sun_path, and its closing NUL


class _Wrong(ValueError):
    """A value that cannot be; the message says why, without naming the key."""


# -- how a value is read: each takes INI text or what a program passed, and returns the value -----


def _text(value: Any) -> str:
    if not isinstance(value, str) or "\n" in value.strip():
        raise _Wrong(f"expected one line of text, not {value!r}")
    return value.strip()


def _list(value: Any, separators: str = r"[,\s]+") -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(filter(None, map(str.strip, re.split(separators, value))))
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(value)
    raise _Wrong(f"expected a list, not {value!r}")


def _names(value: Any) -> tuple[str, ...]:
    return tuple(map(_text, _list(value)))


def _folders(value: Any) -> tuple[str, ...]:
    folders = tuple(map(_text, _list(value, r"[,\n]")))  # a path may hold a space
    for folder in folders:
        if not os.path.isdir(folder):
            raise _Wrong(f"there is no directory {folder}")
    return folders


def _integer(least: int, most: int = 2**53) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,16}", value.strip()):
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            upper = "" if most == 2**53 else f" and at most {most}"
            raise _Wrong(f"expected a whole number of at least {least}{upper}, not {value!r}")
        return value

    return read


def _seconds(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,16}(\.[0-9]{1,16})?", value.strip()):
        value = float(value)
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise _Wrong(f"expected a number of seconds, 0 or more, not {value!r}")
    return float(value)


def _count(value: Any) -> int:
    text = str(value).strip().lower()
    cores = len(os.sched_getaffinity(0))  # those that this process may use
    if text == "auto":
        value = cores
    elif match := re.fullmatch(r"([0-9]{1,4})x", text):
        value = int(match[1]) * cores
    try:
        return _integer(1, 1000)(value)
    except _Wrong:
        raise _Wrong(
            f'expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not {value!r}'
        ) from None


def _unix_path(path: str) -> str:
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise _Wrong(f"the path of a unix socket has at most {UNIX_PATH_BYTES} bytes, not {path}")
    return path


def _address(value: Any) -> Address:
    try:
        address = value if isinstance(value, Address) else parse_address(_text(value))
    except ValueError as error:
        raise _Wrong(str(error)) from None
    _unix_path(address.path)
    return address


def _socket_file(value: Any) -> str:
    return _unix_path(_text(value))


def _networks(value: Any) -> tuple[IpNetwork, ...]:
    networks = []
    for item in _list(value):
        if isinstance(item, str):
            try:
                item = ipaddress.ip_network(item)
            except ValueError as error:
                raise _Wrong(f"{error}, expected e.g. 10.0.0.0/8 or 127.0.0.1") from None
        if not isinstance(item, IpNetwork):
            raise _Wrong(f"expected networks, not {item!r}")
        networks.append(item)
    return tuple(networks)


def _origins(value: Any) -> tuple[str, ...]:
    origins = _names(value)
    for origin in origins:
        if origin != "*" and not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+/?", origin):
            raise _Wrong(f"{origin!r} is no origin, expected e.g. https://app.example.org or *")
    return origins


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
    if isinstance(value, str) and re.fullmatch(r"(0|0o)?[0-7]{3}", value.strip()):
        value = int(value, 8)
    if type(value) is not int or not 0 <= value <= 0o777:
        raise _Wrong(f"expected an octal mode, e.g. 660, not {value!r}")
    return value


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
    origins: tuple[str, ...] = _setting(_origins, ())
    backlog: int = _setting(_integer(1, 65535), 1024)
    socket_mode: int = _setting(_mode, 0o660)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The ``[gtask]`` section, and all services.

    Attributes:
        file: where it was read from; empty for a program's own `run_all`.
    """

    pid_file: str = _setting(_text, "")
    control: str = _setting(_socket_file, "")
    log_level: str = _setting(_one_of("debug", "info", "warning", "error"), "info")
    log_file: str = _setting(_text, "")
    log_format: str = _setting(_one_of("text", "json"), "text")
    stop_timeout: float = _setting(_seconds, 30.0)
    python_path: tuple[str, ...] = _setting(_folders, ())
    services: tuple[ServiceSettings, ...] = ()
    file: str = ""


def load_settings(path: str) -> Settings:
    """Read an INI file.

    Raises:
        ConfigError: all that is wrong, as ``FILE [section] key: what is wrong``.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
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
    problems: list[str] = []
    sections = _read_ini(text, file, problems)
    top: dict[str, Any] = {}
    services: list[tuple[str, dict[str, Any]]] = []
    for section, keys in sections.items():
        where = f"{file} [{section}]"
        kind, _, name = section.partition(":")
        if section == "gtask":
            top = _read(Settings, keys, where, problems)
        elif kind == "worker" and name.strip():
            values = _read(ServiceSettings, keys, where, problems)
            _check_purpose(values, keys, where, problems)
            _check_certificates(keys, where, problems)
            services.append((name.strip(), values))
        else:
            problems.append(f"{where}: unknown section, expected [gtask] or [worker:NAME]")
    if not any(section.startswith("worker:") for section in sections):
        problems.append(f"{file}: there is no [worker:NAME] section, so nothing to serve")
    places = [(name, values.get("listen")) for name, values in services]
    _check_together(places, lambda name: f"{file} [worker:{name}]", problems)
    if problems:
        raise ConfigError(problems)
    made = tuple(ServiceSettings(name=name, **values) for name, values in services)
    return Settings(**top, services=made, file=file)


def make_settings(services: Iterable[ServiceSettings], **options: Any) -> Settings:
    """The settings of a tree whose services a program declares; the rules are those of the INI file.

    Raises:
        TypeError: an option that does not exist.
        ConfigError: all that is wrong.
    """
    _refuse_unknown(Settings, options, "run_all")
    problems: list[str] = []
    values = _read(Settings, options, "run_all:", problems)
    services = tuple(services)
    if not services:
        problems.append("run_all: there is no worker, so nothing to serve")
    places = [(service.name, service.listen) for service in services]
    _check_together(places, lambda name: f"worker {name}:", problems)
    if problems:
        raise ConfigError(problems)
    return Settings(**values, services=services)


def make_service(name: str, listen: str | Address, **options: Any) -> ServiceSettings:
    """The settings of a service that a program declares; the rules are those of the INI file.

    Raises:
        TypeError: an option that does not exist.
        ConfigError: all that is wrong.
    """
    _refuse_unknown(ServiceSettings, options, f"worker {name}")
    problems: list[str] = []
    where = f"worker {name}:"
    values = _read(ServiceSettings, {"listen": listen, **options}, where, problems)
    _check_certificates(options, where, problems)
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


def _refuse_unknown(kind: type, options: Mapping[str, Any], where: str) -> None:
    known = _keys(kind)
    for key in options:
        if key not in known:
            raise TypeError(f"{where}: {_unknown(key, known)}")


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"{key}: unknown key" + (f", did you mean {close[0]}?" if close else "")


def _check_purpose(
    values: Mapping[str, Any], keys: Mapping[str, str], where: str, problems: list[str]
) -> None:
    """Add what is wrong with what a section serves: tasks, or callbacks."""
    protocol = values["listen"].protocol if "listen" in values else ""
    tasks, handler = values.get("tasks"), keys.get("handler")
    if protocol == "text" and not tasks and not handler:
        problems.append(f"{where} tasks: is missing (or handler, for callbacks)")
    if protocol == "websocket" and not handler:
        problems.append(f"{where} handler: is missing, a websocket service needs one")
    if protocol == "websocket" and tasks:
        problems.append(f"{where} tasks: cannot be served by websocket, use a text service")
    if tasks and handler:
        problems.append(f"{where} handler: a service has tasks or a handler, not both")


def _check_certificates(given: Mapping[str, Any], where: str, problems: list[str]) -> None:
    for key in ("keyfile", "cafile"):
        if given.get(key) and not given.get("certfile"):
            problems.append(f"{where} {key}: needs certfile, too")


def _check_together(
    places: Iterable[tuple[str, Address | None]],
    where: Callable[[str], str],
    problems: list[str],
) -> None:
    """Add what is wrong with no service alone: names and addresses that are taken."""
    before: list[tuple[str, Address | None]] = []
    for name, listen in places:
        for other_name, other in before:
            if name == other_name:
                problems.append(f"{where(name)} name: is taken by another service")
                break
            if listen and other and _is_same_place(listen, other):
                problems.append(f"{where(name)} listen: {listen} is taken by {other_name}")
                break
        before.append((name, listen))


def _is_same_place(one: Address, other: Address) -> bool:
    """Whether the kernel refuses to listen on both; host names are not looked up."""
    if one.is_unix or other.is_unix:
        return one.path == other.path
    if one.port != other.port or one.port == 0:
        return False
    everywhere = "::" if ":" in one.host else "0.0.0.0"
    is_same_family = (":" in one.host) == (":" in other.host)
    return one.host == other.host or (is_same_family and everywhere in (one.host, other.host))


# -- INI text ------------------------------------------------------------------------------------


def _read_ini(text: str, file: str, problems: list[str]) -> dict[str, dict[str, str]]:
    """The keys of each section.

    configparser stops at the first mistake; so that all are told, what it complains about is taken
    out and the rest is read again.
    """
    lines = text.split("\n")
    while True:
        parser = configparser.ConfigParser(
            interpolation=None,
            delimiters=("=",),
            inline_comment_prefixes=(";",),
            default_section="",  # no [DEFAULT] that would add its keys to every section
        )
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        try:
            parser.read_file(lines, file)
            return {section: dict(parser[section]) for section in parser.sections()}
        except configparser.Error as error:
            for number, complaint in _parser_problems(error):
                problems.append(f"{file}{complaint} (line {number}: {lines[number - 1].strip()})")
                lines[number - 1] = ";"
                if isinstance(error, configparser.DuplicateSectionError):
                    _take_out_section(lines, number)


def _take_out_section(lines: list[str], number: int) -> None:
    """Take out the keys that follow line `number`, up to the next section."""
    while number < len(lines) and not lines[number].startswith("["):
        lines[number] = ";"
        number += 1


def _parser_problems(error: configparser.Error) -> list[tuple[int, str]]:
    """The lines that configparser complains about, and why."""
    match error:
        case configparser.DuplicateOptionError(lineno=int(line)):
            return [(line, f" [{error.section}] {error.option}: is given twice")]
        case configparser.DuplicateSectionError(lineno=int(line)):
            return [(line, f" [{error.section}]: is there twice")]
        case configparser.MissingSectionHeaderError():
            return [(error.lineno, ": a line before the first [section]")]
        case configparser.ParsingError():
            return [(line, ": expected KEY = VALUE") for line, _ in error.errors]
    raise error
