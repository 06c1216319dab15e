"""`Outbox`: what the kernel has not taken yet, in pieces.

One buffer would be copied as it grows and shrinks, which takes seconds where a peer does not read
answers of megabytes. Large pieces are kept as they are, small ones are put together.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

PIECE_BYTES: Final = 65536  # a piece that is smaller may be added to
WRITE_BYTES: Final = 262144


class Outbox:
    """Bytes in the order in which they are to be sent.

    Attributes:
        size: how many there are.
    """

    __slots__ = ("_pieces", "_start", "size")

    def __init__(self, data: bytes | bytearray, start: int) -> None:
        self._pieces: deque[Any] = deque()
        self._start = 0  # octets of the first piece that have been sent
        self.size = 0
        self.append(data)
        self.drop(start)

    def append(self, data: bytes | bytearray) -> None:
        """Add what is to be sent."""
        size = len(data)
        pieces = self._pieces
        self.size += size
        if size >= PIECE_BYTES:
            pieces.append(bytes(data))  # no copy, if it is bytes already
        elif pieces and type(pieces[-1]) is bytearray and len(pieces[-1]) < PIECE_BYTES:
            pieces[-1].extend(data)
        else:
            pieces.append(bytearray(data))

    def front(self) -> Any:
        """What is to be sent next, or a part of it."""
        first = self._pieces[0]
        start = self._start
        if start or len(first) > WRITE_BYTES:
            return first[start : start + WRITE_BYTES]
        return first

    def drop(self, sent: int) -> None:
        """So much has been sent."""
        pieces = self._pieces
        self.size -= sent
        self._start += sent
        while pieces and self._start >= len(pieces[0]):
            self._start -= len(pieces.popleft())
