"""How one value is read: INI text, or what a program passed, becomes what the settings hold.

Each function here takes a value of any type and returns the one it stands for, or raises `BadValue`.
An empty text never gets here: it stands for the key's default.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..address import NOWHERE, Address, parse_address
from ..store_address import StoreAddress, is_store, parse_store

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

ORIGIN = r"\*|null|file://|[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+/?"  # the two in between: of apps
UNIX_PATH_BYTES = 107  # unix(7): sun_path, and its closing NUL


CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")  # what no line of text holds; a tab may be in one


class BadValue(ValueError):
    """A value that cannot be; the message says why, without naming the key."""


# -- texts and lists ------------------------------------------------------------------------------


def text(value: Any) -> str:
    if not isinstance(value, str) or CONTROL.search(value.strip()):
        raise BadValue(f"expected one line of text, not {value!r}")
    return value.strip()


def path(value: Any) -> str:
    name = text(value)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise BadValue(
            f"{name!a} is no file name in this locale, whose encoding is {encoding}"
        ) from None
    return name


def one_of(*choices: str) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        choice = text(value).lower()
        if choice not in choices:
            raise BadValue(f"expected {' or '.join(choices)}, not {value!r}")
        return choice

    return read


def switch(value: Any) -> str:
    if isinstance(value, bool):  # a program's
        return "on" if value else "off"
    return one_of("on", "off")(value)


def names(value: Any) -> tuple[str, ...]:
    return tuple(map(text, _items(value)))


def _items(value: Any, separators: str = r"[,\s]+") -> tuple[Any, ...]:
    if isinstance(value, str):
        return tuple(filter(None, map(str.strip, re.split(separators, value))))
    if isinstance(value, list | tuple | set | frozenset):
        return tuple(value)
    raise BadValue(f"expected a list, not {value!r}")


# -- numbers --------------------------------------------------------------------------------------


def integer(least: int, most: int = 2**53) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,16}", value.strip()):
            value = int(value)
        if type(value) is not int or not least <= value <= most:
            upper = "" if most == 2**53 else f" and at most {most}"
            raise BadValue(f"expected a whole number of at least {least}{upper}, not {value!r}")
        return value

    return read


def seconds(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,16}(\.[0-9]{1,16})?", value.strip()):
        value = float(value)
    if type(value) not in (int, float) or not 0 <= value < 1e9:
        raise BadValue(f"expected a number of seconds, 0 or more, not {value!r}")
    return float(value)


def process_count(value: Any) -> int:
    words = str(value).strip().lower()
    cores = len(os.sched_getaffinity(0))  # those that this process may use
    if words == "auto":
        value = cores
    elif match := re.fullmatch(r"([0-9]{1,4})x", words):
        value = int(match[1]) * cores
    try:
        return integer(1, 1000)(value)
    except BadValue:
        raise BadValue(
            f'expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not {value!r}'
        ) from None


def file_mode(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(r"(0|0o)?[0-7]{3}", value.strip()):
        value = int(value, 8)
    if type(value) is not int or not 0 <= value <= 0o777:
        raise BadValue(f"expected an octal mode, e.g. 660, not {value!r}")
    return value


# -- addresses ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """What `listen` names: where calls come in, and where tasks are kept."""

    address: Address
    stores: tuple[StoreAddress, ...]


def places(value: Any) -> Places:
    given = (value,) if isinstance(value, Address | StoreAddress) else _items(value, r",\s+|\s+")
    stores = tuple(map(_store, filter(_is_store, given)))
    if not stores:
        return Places(address(value), ())
    addresses = [address(one) for one in given if not _is_store(one)]
    if len(addresses) > 1:
        raise BadValue(
            f"one address to listen at, and stores, not {addresses[0]} and {addresses[1]}"
        )
    if len({(one.path, one.queue) for one in stores}) < len(stores):
        raise BadValue("a store is given twice")
    return Places(addresses[0] if addresses else NOWHERE, stores)


def _is_store(value: Any) -> bool:
    return isinstance(value, StoreAddress) or (isinstance(value, str) and is_store(value))


def _store(value: Any) -> StoreAddress:
    try:
        return value if isinstance(value, StoreAddress) else parse_store(value)
    except ValueError as error:
        raise BadValue(str(error)) from None


def address(value: Any) -> Address:
    try:
        parsed = value if isinstance(value, Address) else parse_address(text(value))
    except ValueError as error:
        raise BadValue(str(error)) from None
    socket_path(parsed.path)
    return parsed


def socket_path(value: Any) -> str:
    name = path(value)
    if len(os.fsencode(name)) > UNIX_PATH_BYTES:
        raise BadValue(f"the path of a unix socket has at most {UNIX_PATH_BYTES} bytes, not {name}")
    return name


def networks(value: Any) -> tuple[IpNetwork, ...]:
    return tuple(map(_network, _items(value)))


def _network(value: Any) -> IpNetwork:
    if isinstance(value, str):
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            raise BadValue(f"{error}, expected e.g. 10.0.0.0/8 or 127.0.0.1") from None
    if not isinstance(value, IpNetwork):
        raise BadValue(f"expected networks, not {value!r}")
    return value


def origins(value: Any) -> tuple[str, ...]:
    given = names(value)
    for origin in given:
        if not re.fullmatch(ORIGIN, origin):
            raise BadValue(
                f"{origin!r} is no origin, expected e.g. https://app.example.org, null, file:// or *"
            )
    return given


# -- what this machine must have ------------------------------------------------------------------


def existing_file(value: Any) -> str:
    name = path(value)
    if not os.path.isfile(name):
        raise BadValue(f"there is no file {name}")
    return name


def existing_folders(value: Any) -> tuple[str, ...]:
    folders = tuple(map(path, _items(value, r"[,\n]")))  # a path may hold a space
    for folder in folders:
        if not os.path.isdir(folder):
            raise BadValue(f"there is no directory {folder}")
    return folders


def user(value: Any) -> str:
    return _known_name("user", value, pwd.getpwnam)


def group(value: Any) -> str:
    return _known_name("group", value, grp.getgrnam)


def _known_name(kind: str, value: Any, look_up: Callable[[str], object]) -> str:
    name = text(value)
    try:
        look_up(name)
    except KeyError:
        raise BadValue(f"there is no {kind} {name!r}") from None
    return name
