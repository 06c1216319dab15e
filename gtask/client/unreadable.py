"""Answers that cannot be read, as they are too long or no JSON: whose they are.

So one costs its own call, and not the connection with all others. The id is the last member of the
answer of a gtask server, and among the first ones of the answers of others.
"""

from __future__ import annotations

import re

from ..errors import FrameTooLong

ENDS = 200  # octets that are kept of either end
MAX_FRAMES = 16  # as many times the limit are skipped, and in any case
MAX_BYTES = 64 * 1024 * 1024  # so many octets; what is longer has no end

_LAST = re.compile(rb'[,{]\s*"id"\s*:\s*(\d{1,18})\s*\}\s*\Z')
_FIRST = re.compile(rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18})\s*,')


def id_of(head: bytes, tail: bytes) -> int:
    """Of the call that is answered by a frame with these ends; 0, which no call has, if unknown."""
    found = _LAST.search(tail) or _FIRST.match(head)
    return int(found[1]) if found else 0


class Skipper:
    """Drops an answer that is too long.

    Takes the octets of one frame to its line feed, and best of all from its beginning.

    Args:
        limit: octets, which the frame has passed.
    """

    def __init__(self, limit: int) -> None:
        self._size = 0
        self._limit = limit
        self._room = ENDS  # octets that the head still lacks
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> bytes | None:
        """Drop `data`; returns what follows the frame once that has ended.

        Raises:
            FrameTooLong: it is not going to.
        """
        frame, end, rest = data.partition(b"\n")
        self._size += len(frame)
        self._head += frame[: self._room]
        self._room = max(0, self._room - len(frame))
        self._tail = (self._tail + frame[-ENDS:])[-ENDS:]
        if self._size > max(MAX_FRAMES * self._limit, MAX_BYTES):
            raise FrameTooLong(self._limit)
        return rest if end else None

    def id(self) -> int:
        """Of the call that it answers; 0, which no call has, if that cannot be told."""
        return id_of(self._head, self._tail)
