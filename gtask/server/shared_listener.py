"""A worker is a gevent `StreamServer` that shares its listening socket with its siblings.

gevent's server starts, pauses after errors, and stops; `SharedListener`, put before it, changes
what the sharing wants otherwise: it is the gate, not the watcher, that is shut and opened, and
whether it is open depends on the siblings' loads. `_do_read`, `do_read` and so on are gevent's names.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from gevent.server import StreamServer

from ..logs.loggers import get_logger
from .acceptor import Acceptor
from .fairness import Fairness
from .gate import Gate

log = get_logger(__name__)

Mixin: Any = object  # what its `super()` is, checkers cannot know


class SharedListener(Mixin):  # type: ignore[misc]
    """Mixin before `gevent.server.StreamServer`; to be told by `share` what to do."""

    fairness: Fairness
    _acceptor: Acceptor
    _gate: Gate | None = None
    _failure: BaseException | None = None

    def share(
        self, take: Callable[[Any, Any], None], fairness: Fairness, serve_newest: Callable[[], None]
    ) -> None:
        """To be called before `start`.

        Args:
            take: called with each connection, a plain C socket, and its peer's address, in the hub.
            fairness: opens and shuts our gate.
            serve_newest: serves what has come already on the connection taken last.
        """
        self.fairness = fairness
        self._acceptor = Acceptor(self.socket, take, fairness, serve_newest)

    def start_accepting(self) -> None:
        """Start the watcher, once, and take its registration over; or just take part again."""
        if self._gate is None:
            super().start_accepting()
            self._gate = Gate(self.loop, self.socket.fileno())
            if self.fairness.gate is None:
                self.fairness.start(self._gate)
            else:
                self.fairness.gate.link(self._gate)
        else:
            self.fairness.reconsider()

    def stop_accepting(self) -> None:
        """Take no part for now; for good where the server has been stopped."""
        if self._gate is not None and self.started:
            self._gate.shut()
            return
        if self._gate is not None:
            self._gate.close()
            self._gate = None
            self.fairness.stop()
        super().stop_accepting()

    def _do_read(self) -> None:
        """Accept in compiled code; what that raises is gevent's to log, and to pause after.

        gevent's own loop, which is Python, would cost each connection a fifth more where many
        processes share them, as each finds it in a cold cache.
        """
        try:
            self._acceptor.accept_some()
        except BaseException as error:
            self._failure = error
            super()._do_read()

    def do_read(self) -> None:
        """For gevent's loop: what went wrong."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def is_fatal_error(self, error: BaseException) -> bool:
        """Never: gevent would stop for good after an EBADF, which here is a connection's."""
        return False

    def finish(self) -> None:
        """Accept what is in the queue already, then never again."""
        if self._gate is None:
            return
        self.fairness.stop()
        self._gate.shut()
        while self.accept_one():
            pass
        self.stop()

    def leave(self) -> None:
        """Never accept again: what is in the queue, our siblings accept.

        But for one connection if we may: the kernel may have told us of it, and nobody else.
        """
        if self._gate is None:
            return
        if self.fairness.is_open:
            self.accept_one()
        self.fairness.stop()
        self.stop()

    def accept_one(self) -> bool:
        """Accept one connection, whatever the gate says; False if there is none."""
        try:
            return self._acceptor.accept_one()
        except Exception:  # the edge: those behind it shall be served
            log.exception("cannot take a connection")
            return True

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave the accepting to the worker."""
        if self._gate is not None:
            self.fairness.stop()
            self._gate.after_fork_in_child()
            self._watcher.stop()


class TextServer(SharedListener, StreamServer):  # type: ignore[misc]
    """The server of a text service: its connections live on the hub, and need no greenlet."""

    def handle(self, client: Any, address: Any) -> None:
        """Nothing: the acceptor hands connections over."""


def keep_back_silent(listener: socket.socket) -> None:
    """Have the kernel hand a connection over when something has come on it (tcp(7)).

    It is then accepted, read and answered in one turn of the loop: an eighth less for a task that
    has a connection of its own. One that stays silent is handed over after about a second.
    """
    _set_defer_accept(listener, 1)


def hand_over_silent(listener: socket.socket) -> None:
    """Have the kernel hand over each connection at once."""
    _set_defer_accept(listener, 0)


def _set_defer_accept(listener: socket.socket, seconds: int) -> None:
    if listener.family != socket.AF_UNIX:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, seconds)
