"""Addresses of stores: `sqlite:///var/lib/gtask/mail.db?queue=mail`, and what they stand for."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

SCHEMES = ("sqlite",)
DEFAULT_QUEUE = "default"
SOCKET_PATH_BYTES = 107  # unix(7): sun_path, without its closing NUL
_QUEUE = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True)
class StoreAddress:
    """A queue in a store.

    Attributes:
        scheme: "sqlite".
        path: of the store's file, absolute.
        queue: the queue's name in it.
    """

    scheme: str
    path: str
    queue: str = DEFAULT_QUEUE

    @property
    def store(self) -> str:
        """The store's URL, without a queue."""
        return f"{self.scheme}://{quote(self.path)}"

    @property
    def socket_path(self) -> str:
        """Where the process that owns the store listens."""
        return os.path.realpath(self.path) + ".sock"

    def __str__(self) -> str:
        return self.store + (f"?queue={self.queue}" if self.queue != DEFAULT_QUEUE else "")


def is_store(url: str) -> bool:
    """Whether `url` is meant to be the address of a store."""
    scheme, colon, _ = url.strip().partition(":")
    return bool(colon) and scheme.lower() in SCHEMES


def parse_store(url: str) -> StoreAddress:
    """Read `url`: `sqlite:///ABSOLUTE`, or `sqlite:RELATIVE` to the working directory.

    Raises:
        ValueError: with a message that says what is wrong.
    """
    rest, question, query = url.strip().partition("?")
    scheme, _, path = rest.partition(":")
    if scheme.lower() not in SCHEMES:
        raise ValueError(f"{url!r}: expected sqlite:///PATH")
    if path.startswith("//"):
        path = path.removeprefix("//")
        if not path.startswith("/"):
            raise ValueError(f"{url!r}: expected sqlite:///ABSOLUTE/PATH or sqlite:RELATIVE/PATH")
    path = unquote(path)
    if not path or path.endswith("/") or "\0" in path:
        raise ValueError(f"{url!r}: the path of a file is missing")
    found = StoreAddress(
        "sqlite", os.path.abspath(path), _queue(url, query) if question else "default"
    )
    if len(os.fsencode(found.socket_path)) > SOCKET_PATH_BYTES:
        raise ValueError(f"{url!r}: the real path of the file may have at most 102 bytes")
    return found


def _queue(url: str, query: str) -> str:
    key, _, value = query.partition("=")
    if key != "queue" or not _QUEUE.fullmatch(unquote(value)):
        raise ValueError(f"{url!r}: after ? only queue=NAME may stand, of A-Z a-z 0-9 . _ : -")
    return unquote(value)
