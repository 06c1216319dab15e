"""The two tables of settings, and the rules that hold among their values."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from os.path import normpath
from typing import Any

from ..address import Address
from ..errors import ConfigError
from ..store_address import StoreAddress
from . import values
from .cron import CronSettings
from .stores import store_conflicts
from .values import BadValue, IpNetwork


def _setting(read: Callable[[Any], Any], default: Any = MISSING) -> Any:
    return field(default=default, metadata={"read": read})


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """One ``[worker:NAME]`` section (docs/configuration.md describes each key).

    Times are in seconds, sizes in bytes unless the name says MB; 0 is "none" or "never".

    Attributes:
        listen: where calls come in; `NOWHERE` for a service that has a store alone.
        stores: where its durable tasks are kept, also given by `listen`.
    """

    name: str
    listen: Address = _setting(values.places)
    stores: tuple[StoreAddress, ...] = ()
    count: int = _setting(values.process_count, 1)
    concurrency: int = _setting(values.integer(1), 100)
    tasks: tuple[str, ...] = _setting(values.names, ())
    handler: str = _setting(values.text, "")
    task_timeout: float = _setting(values.seconds, 60.0)
    hard_timeout: float = _setting(values.seconds, 0.0)
    max_tasks: int = _setting(values.integer(0), 0)
    max_rss_mb: int = _setting(values.integer(0), 0)
    max_connections: int = _setting(values.integer(1), 10000)
    max_frame_bytes: int = _setting(values.integer(1), 10485760)
    max_batch: int = _setting(values.integer(1), 100)
    max_send_buffer_bytes: int = _setting(values.integer(1), 1048576)
    max_pending_bytes: int = _setting(values.integer(1), 268435456)
    send_timeout: float = _setting(values.seconds, 30.0)
    handshake_timeout: float = _setting(values.seconds, 10.0)
    idle_timeout: float = _setting(values.seconds, 0.0)
    certfile: str = _setting(values.existing_file, "")
    keyfile: str = _setting(values.existing_file, "")
    cafile: str = _setting(values.existing_file, "")
    allow: tuple[IpNetwork, ...] = _setting(values.networks, ())
    proxy_protocol: str = _setting(values.switch, "off")
    proxy_networks: tuple[IpNetwork, ...] = _setting(values.networks, ())
    user: str = _setting(values.user, "")
    group: str = _setting(values.group, "")
    origins: tuple[str, ...] = _setting(values.origins, ())
    backlog: int = _setting(values.integer(1, 65535), 1024)
    socket_mode: int = _setting(values.file_mode, 0o660)
    queue_concurrency: int = _setting(values.integer(0), 0)
    store_mode: int = _setting(values.file_mode, 0o600)

    @property
    def place(self) -> str:
        """What `listen` says."""
        address = () if self.listen.is_nowhere else (self.listen,)
        return ", ".join(map(str, (*address, *self.stores)))

    @property
    def queue_places(self) -> int:
        """How many durable tasks one process may hold."""
        if self.queue_concurrency:
            return min(self.queue_concurrency, self.concurrency)
        return self.concurrency if self.listen.is_nowhere else max(1, self.concurrency * 3 // 4)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The ``[gtask]`` section, all services, and what is put by the clock.

    Attributes:
        file: where it was read from; empty for a program's own `run_all`.
    """

    pid_file: str = _setting(values.path, "")
    control: str = _setting(values.socket_path, "")
    log_level: str = _setting(values.one_of("debug", "info", "warning", "error"), "info")
    log_file: str = _setting(values.path, "")
    log_format: str = _setting(values.one_of("text", "json"), "text")
    stop_timeout: float = _setting(values.seconds, 30.0)
    boot_timeout: float = _setting(values.seconds, 60.0)
    python_path: tuple[str, ...] = _setting(values.existing_folders, ())
    services: tuple[ServiceSettings, ...] = ()
    crons: tuple[CronSettings, ...] = ()
    file: str = ""


# -- settings from a program's keyword arguments --------------------------------------------------


def make_settings(services: Iterable[ServiceSettings], **options: Any) -> Settings:
    """The settings of a tree whose services a program declares; the rules are those of the INI file.

    Raises:
        TypeError: an option that does not exist.
        ConfigError: all that is wrong.
    """
    _refuse_unknown(Settings, options, "run_all")
    services = tuple(services)
    read, wrong = read_values(Settings, options)
    if not services:
        wrong.append("there is no worker, so nothing to serve")
    problems = [f"run_all: {one}" for one in wrong]
    taken = conflicts((service.name, service.listen) for service in services)
    problems += [f"worker {name}: {one}" for name, one in taken]
    problems += [f"worker {name}: {one}" for name, one in store_conflicts(services)]
    if problems:
        raise ConfigError(problems)
    return Settings(**read, services=services)


def make_service(
    name: str, listen: Any, *, stores: tuple[StoreAddress, ...] = (), **options: Any
) -> ServiceSettings:
    """The settings of a service that a program declares; the rules are those of the INI file.

    Args:
        stores: beside those that `listen` names.

    Raises:
        TypeError: an option that does not exist.
        ConfigError: all that is wrong.
    """
    _refuse_unknown(ServiceSettings, options, f"worker {name}")
    read, wrong = read_values(ServiceSettings, {"listen": listen, **options})
    wrong += _wrong_name(name)
    wrong += [*missing_certificates(options), *missing_proxies(read, options)]
    if wrong:
        raise ConfigError([f"worker {name}: {one}" for one in wrong])
    read["stores"] = read.get("stores", ()) + stores
    return ServiceSettings(name=name, **read)


def _wrong_name(name: Any) -> Iterator[str]:
    try:
        values.text(name)
    except BadValue as error:
        yield f"name: {error}"


def _refuse_unknown(kind: type, options: Mapping[str, Any], where: str) -> None:
    known = _keys(kind)
    for key in options:
        if key not in known:
            raise TypeError(f"{where}: {_unknown(key, known)}")


# -- what is wrong, each as ``key: why`` ----------------------------------------------------------


def read_values(kind: type, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values of the keys of one table that were given, and what is wrong with them."""
    known = _keys(kind)
    read: dict[str, Any] = {}
    wrong: list[str] = []
    for key, value in given.items():
        if key not in known:
            wrong.append(_unknown(key, known))
        elif not _means_default(value, known[key]):
            try:
                read[key] = known[key].metadata["read"](value)
            except BadValue as error:
                wrong.append(f"{key}: {error}")
    if isinstance(places := read.get("listen"), values.Places):
        read |= {"listen": places.address, "stores": places.stores}
    needed = (key for key, one in known.items() if one.default is MISSING)
    wrong += [f"{key}: is missing" for key in needed if key not in given]
    return read, wrong


def _keys(kind: type) -> dict[str, Field[Any]]:
    return {one.name: one for one in fields(kind) if "read" in one.metadata}


KEYS = {*_keys(Settings), *_keys(ServiceSettings)}  # of both tables


def _means_default(value: Any, key: Field[Any]) -> bool:
    return isinstance(value, str) and not value.strip() and key.default is not MISSING


def _unknown(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key.lower(), known, n=1)
    return f"{key}: unknown key" + (f", did you mean {close[0]}?" if close else "")


def wrong_purpose(read: Mapping[str, Any], given: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with what a section serves: tasks, perhaps with a handler, or callbacks.

    Args:
        read: its values, without those that are wrong by themselves.
        given: its keys as they were written.
    """
    protocol = read["listen"].protocol if "listen" in read else ""
    tasks, handler = read.get("tasks"), given.get("handler")
    if read.get("stores") and (protocol == "websocket" or not tasks):
        yield "listen: a store needs tasks, and no websocket beside it"
    elif protocol == "text" and not tasks and not handler:
        yield "tasks: is missing (or handler, for callbacks)"
    if protocol == "websocket" and not handler:
        yield "handler: is missing, a websocket service needs one"
    if protocol == "websocket" and tasks:
        yield "tasks: cannot be served by websocket, use a text service"


def missing_certificates(given: Mapping[str, Any]) -> Iterator[str]:
    """The keys that stand there without the certificate that they belong to."""
    for key in ("keyfile", "cafile"):
        if given.get(key) and not given.get("certfile"):
            yield f"{key}: needs certfile, too"


def missing_proxies(read: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with whose PROXY headers are believed: everybody can write one."""
    if read.get("proxy_protocol") == "on" and not given.get("proxy_networks"):
        yield "proxy_protocol: needs proxy_networks, too: those that may speak it"


def conflicts(places: Iterable[tuple[str, Address | None]]) -> Iterator[tuple[str, str]]:
    """What is wrong with no service alone: the names of those whose name or address is taken.

    Args:
        places: the name of each service, and its address if that could be read.
    """
    before: list[tuple[str, Address | None]] = []
    for name, listen in places:
        for other_name, other in before:
            if name == other_name:
                yield name, "name: is taken by another service"
                break
            if listen and other and _is_same_place(listen, other):
                yield name, f"listen: {listen} is taken by {other_name}"
                break
        before.append((name, listen))


def _is_same_place(one: Address, other: Address) -> bool:
    """Whether the kernel refuses to listen on both; of host names, only `localhost` is known."""
    if one.is_unix or other.is_unix:
        return one.is_unix and other.is_unix and normpath(one.path) == normpath(other.path)
    if one.port != other.port or one.port == 0:
        return False
    return any(
        _collide(first, second)
        for first in _addresses(one.host)
        for second in _addresses(other.host)
    )


def _addresses(host: str) -> tuple[str, ...]:
    """A host's addresses, each in the one way to write it; a name as it is."""
    if host.lower() == "localhost":
        return ("127.0.0.1", "::1")
    try:
        return (str(ipaddress.ip_address(host)),)
    except ValueError:
        return (host.lower(),)


def _collide(one: str, other: str) -> bool:
    """The same address, or one is among those that the other stands for."""
    if one == other or "::" in (one, other):  # `[::]` takes IPv4, too
        return True
    return "0.0.0.0" in (one, other) and ":" not in one + other
