"""Which stores a tree has: one for each file, whatever services share it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from ..store_address import StoreAddress
from .cron import CronSettings


class StoreUser(Protocol):
    """A service, as far as stores go."""

    @property
    def name(self) -> str: ...
    @property
    def stores(self) -> tuple[StoreAddress, ...]: ...
    @property
    def tasks(self) -> tuple[str, ...]: ...
    @property
    def user(self) -> str: ...
    @property
    def group(self) -> str: ...
    @property
    def store_mode(self) -> int: ...


@dataclass(frozen=True)
class StoreSettings:
    """A store, and what its process is.

    Attributes:
        path: of the file, without links.
        url: for people.
        mode: of its files.
        user, group: as which the process runs; empty: as the master does.
        crons: what it puts by the clock.
    """

    path: str
    url: str
    mode: int
    user: str = ""
    group: str = ""
    crons: tuple[CronSettings, ...] = ()


class Tree(Protocol):
    """All settings, as far as stores go."""

    @property
    def services(self) -> tuple[StoreUser, ...]: ...
    @property
    def crons(self) -> tuple[CronSettings, ...]: ...


def stores_of(tree: Tree) -> tuple[StoreSettings, ...]:
    """The stores of all services, each once."""
    services = tree.services
    found: dict[str, StoreSettings] = {}
    for service in services:
        for store in service.stores:
            path = os.path.realpath(store.path)
            one = StoreSettings(path, store.store, service.store_mode, service.user, service.group)
            found.setdefault(path, one)
    for cron in tree.crons:
        path = os.path.realpath(cron.queue.path)
        one = found.get(path) or StoreSettings(path, cron.queue.store, 0o600)
        found[path] = replace(one, crons=(*one.crons, cron))
    return tuple(found.values())


def store_conflicts(services: Iterable[StoreUser]) -> Iterator[tuple[str, str]]:
    """What services that share a store do not agree on, with the name of the second."""
    first: dict[str, StoreUser] = {}
    first_of_queue: dict[tuple[str, str], StoreUser] = {}
    for service in services:
        for store in service.stores:
            path = os.path.realpath(store.path)
            other = first.setdefault(path, service)
            for key in ("user", "group", "store_mode"):
                if getattr(other, key) != getattr(service, key):
                    yield service.name, f"{key}: is another than that of {other.name}, same store"
            same = first_of_queue.setdefault((path, store.queue), service)
            if set(same.tasks) != set(service.tasks):
                yield service.name, f"tasks: are others than those of {same.name}, same queue"
