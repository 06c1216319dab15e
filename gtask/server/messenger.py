"""What a worker tells its master: kept until the master takes it, as all workers share one channel."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections import deque
from typing import Any

import ujson

from .. import native

MOST = 1000  # messages that wait; a report of ten thousand connections is two hundred
FAREWELL_SECONDS = 1.0  # for the words of a process that is about to end


class Messenger:
    """Sends messages in their order; what does not fit now is sent when `flush` is called next.

    Args:
        channel: a SOCK_SEQPACKET socket.

    Attributes:
        row: the sender's on the scoreboard.
    """

    def __init__(self, channel: socket.socket) -> None:
        self.row = 0
        self._channel = channel
        self._waiting: deque[tuple[str, bytes]] = deque()

    def tell(self, event: str, **details: Any) -> None:
        """Send a message, or have it wait; past a thousand it is dropped."""
        if len(self._waiting) >= MOST:
            return
        message = {"event": event, "row": self.row, "pid": os.getpid(), **details}
        self._waiting.append((event, ujson.dumps(message).encode()))
        self.flush()

    def forget(self, event: str) -> None:
        """Let those of a kind wait no more: newer ones follow."""
        self._waiting = deque(each for each in self._waiting if each[0] != event)

    def flush(self) -> None:
        """Send what the channel takes now."""
        try:
            while self._waiting:
                self._channel.send(self._waiting[0][1], socket.MSG_DONTWAIT)
                self._waiting.popleft()
        except BlockingIOError:
            pass
        except OSError:  # the master has gone, and so shall we, soon
            self._waiting.clear()

    def close(self) -> None:
        """In a child that user code has forked, whom the master does not know."""
        self._channel.close()

    def tell_at_last(self, event: str, **details: Any) -> None:
        """The same for the last message of a process: waits a while for room, and not in the loop."""
        self.tell(event, **details)
        if self._waiting:
            with contextlib.suppress(OSError):
                poll = native.poll()
                poll.register(self._channel, select.POLLOUT)
                poll.poll(FAREWELL_SECONDS * 1000)
            self.flush()
