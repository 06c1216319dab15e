"""What one mold has of a generation, and its words to those who have asked for it."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import ujson

from ..generation import Generation

FAILED = 1
SHORT = 200  # characters of what was too long to be told


@dataclass(frozen=True)
class Part:
    """A mold's share: all services of a generation, or those of one user.

    Attributes:
        generation: with these services alone. Its channel leads to the master.
        orders: where requests come from, and where the outcome of the loading goes.
        parent: the process that it dies with.
    """

    generation: Generation
    orders: socket.socket
    parent: int

    def tell_loaded(self, functions: Mapping[str, list[str]]) -> None:
        """The code is loaded; `status` shows names as far as they fit into one message."""
        while not _send(self.orders, event="loaded", functions=functions):
            functions = {name: known[: len(known) // 2] for name, known in functions.items()}

    def tell_not_loaded(self, problems: list[str], code: int = FAILED) -> None:
        """The code cannot be loaded; `code` is for a program that cannot start for it."""
        while not _send(self.orders, event="failed", problems=problems, code=code):
            problems = [problem[:SHORT] for problem in problems[: max(1, len(problems) // 2)]]

    def report(self, **message: Any) -> None:
        """Tell the master."""
        _send(self.generation.channel, **message)


def _send(channel: socket.socket, **message: Any) -> bool:
    """False if the message is too long."""
    try:
        channel.send(ujson.dumps(message).encode())
    except OSError as error:
        return error.errno != errno.EMSGSIZE  # else they have gone, and so shall we
    return True


def part_of(
    generation: Generation, user: str, group: str, orders: socket.socket, parent: int
) -> Part:
    """The share of those services that run as this user and group."""
    services = tuple(
        each for each in generation.settings.services if (each.user, each.group) == (user, group)
    )
    names = {each.name for each in services}
    own = replace(
        generation,
        settings=replace(generation.settings, services=services),
        listeners={name: all_ for name, all_ in generation.listeners.items() if name in names},
        scoreboards={name: one for name, one in generation.scoreboards.items() if name in names},
    )
    return Part(own, orders, parent)


def close_listeners(generation: Generation, kept: Generation) -> None:
    """Close this process's copies of those of a generation's listeners that a part has not."""
    for name, listeners in generation.listeners.items():
        if name not in kept.listeners:
            for listener in listeners:
                with contextlib.suppress(OSError):
                    listener.close()
