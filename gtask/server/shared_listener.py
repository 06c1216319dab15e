"""A worker is a gevent `StreamServer` that shares its listening socket with its siblings.

gevent's server starts, accepts, pauses after errors and stops; `SharedListener`, put before it,
changes what the sharing wants otherwise: it is the gate, not the watcher, that is shut and opened,
and whether it is open depends on the siblings' loads.
"""

from __future__ import annotations

import _socket
import errno
import logging
from collections.abc import Callable
from time import monotonic
from typing import Any

from gevent.server import StreamServer

from .fairness import Fairness
from .gate import Gate

log = logging.getLogger(__name__)

EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_SECONDS = 0.25
COMPLAIN_SECONDS = 10.0  # between two lines of the log about it


Mixin: Any = object  # what its `super()` is, checkers cannot know


class SharedListener(Mixin):  # type: ignore[misc]
    """Mixin before `gevent.server.StreamServer`; give it what to do by `share`.

    `max_accept`, `full`, `do_read`, `do_handle` and the rest are gevent's names.
    """

    fairness: Fairness
    _gate: Gate | None = None
    _complained_at = 0.0

    def share(
        self,
        take: Callable[[Any, Any], None],
        fairness: Fairness,
        poll: Callable[[], None],
    ) -> None:
        """To be called before `start`.

        Args:
            take: called with each connection, a plain C socket, and its peer's address, in the hub.
            fairness: opens and shuts our gate.
            poll: reads what a connection that was just taken has sent already.
        """
        self._take = take
        self.fairness = fairness
        self._poll = poll

    def start_accepting(self) -> None:
        """Start the watcher, once, and take its registration over; or just take part again."""
        if self._gate is None:
            super().start_accepting()
            self._gate = Gate(self.loop, self.socket.fileno())
            self.fairness.start(self._gate)
        else:
            self.fairness.reconsider()

    def stop_accepting(self) -> None:
        """Take no part for now; for good where the server has been stopped."""
        gate = self._gate
        if gate is not None and self.started:
            gate.shut()
            return
        if gate is not None:
            gate.close()
            self._gate = None
            self.fairness.stop()
        super().stop_accepting()

    def full(self) -> bool:
        """It is a sibling's turn."""
        return self._gate is None or not self._gate.is_open

    def _do_read(self) -> None:
        self.max_accept = self.fairness.burst()
        super()._do_read()

    def do_read(self) -> tuple[Any, Any] | None:
        """Accept one connection; None if there is none."""
        listener = self.socket
        try:
            # The C base class's: it makes no Python socket, which is half of the cost.
            fd, address = listener._accept()
        except BlockingIOError:
            return None  # a sibling was faster, or there are no more
        except OSError as error:
            if error.errno in EXHAUSTED:
                self._exhausted(error)
            return None  # else the peer has gone again, accept(2)
        return _socket.socket(listener.family, _socket.SOCK_STREAM, 0, fd), address

    def do_handle(self, client: Any, address: Any) -> None:
        """Hand the connection over; an error ends it, and gevent's class logs that and pauses."""
        try:
            self._take(client, address)
        except BaseException:
            client.close()
            raise
        fairness = self.fairness
        fairness.accepted += 1
        fairness.reconsider()
        if fairness.is_shared:
            self._poll()  # where many processes share, what was sent is often there by now

    def finish(self) -> None:
        """Accept what is in the queue already, then never again."""
        if self._gate is None:
            return
        self.fairness.stop()
        self._gate.shut()
        while (accepted := self.do_read()) is not None:
            try:
                self._take(*accepted)
            except Exception:  # the edge: those behind it shall be served
                log.exception("cannot take a connection")
                accepted[0].close()
        self.stop()

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave the accepting to the worker."""
        if self._gate is not None:
            self.fairness.stop()
            self._gate.after_fork_in_child()
            self._watcher.stop()

    def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: let some be closed before we try again."""
        self.fairness.pause(EXHAUSTED_SECONDS)
        now = monotonic()
        if now - self._complained_at > COMPLAIN_SECONDS:
            self._complained_at = now
            log.error("cannot accept connections: %s", error.strerror)


class TextServer(SharedListener, StreamServer):  # type: ignore[misc]
    """The server of a text service: its connections live on the hub, and need no greenlet."""

    def handle(self, client: Any, address: Any) -> None:
        """Nothing: `do_handle` hands connections over."""
