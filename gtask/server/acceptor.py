"""`Acceptor`: accepts connections as plain C sockets, as many a turn of the loop as is fair."""

from __future__ import annotations

import _socket
import errno
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..logs.loggers import get_logger
from .fairness import Fairness

log = get_logger(__name__)

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_SECONDS = 0.25
COMPLAIN_SECONDS = 10.0  # between two lines of the log about it


class Acceptor:
    """What a server calls when its listening socket is readable.

    Args:
        listener: the listening socket, non-blocking and not gevent's.
        take: called with each connection and its peer's address.
        fairness: whose turn it is.
        serve_newest: serves what has come already on the connection taken last.
    """

    def __init__(
        self,
        listener: Any,
        take: Callable[[Any, Any], None],
        fairness: Fairness,
        serve_newest: Callable[[], None],
    ) -> None:
        self._accept: Any = listener._accept  # the C base class's: no Python socket is made
        self._family: int = listener.family
        self._take = take
        self._fairness = fairness
        self._serve_newest = serve_newest
        self._complained_at = 0.0

    def accept_some(self) -> None:
        """Accept what is our share, and hand it over; an error ends only its own connection.

        Raises:
            BaseException: what handing over has raised; the connection is closed.
        """
        fairness = self._fairness
        most = fairness.burst()
        while fairness.accepted < most and fairness.is_open and self.accept_one():
            fairness.accepted += 1
            if fairness.is_shared:
                self._serve_newest()  # what was answered at once is no load, when the gate is looked at
            fairness.reconsider()

    def accept_one(self) -> bool:
        """Accept and hand over one connection; False if there is none."""
        try:
            fd, address = self._accept()
        except BlockingIOError:
            return False  # a sibling was faster, or there are no more
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._exhausted(error)
            return False  # else the peer has gone again, accept(2)
        client = _socket.socket(self._family, _socket.SOCK_STREAM, 0, fd)
        try:
            self._take(client, address)
        except BaseException:
            client.close()
            raise
        return True

    def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: let some be closed before we try again."""
        self._fairness.pause(EXHAUSTED_SECONDS)
        now = monotonic()
        if now - self._complained_at > COMPLAIN_SECONDS:
            self._complained_at = now
            log.error("cannot accept connections: %s", error.strerror)
