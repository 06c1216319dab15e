"""Accepting from the socket that all workers of a service share: no herd, and fair.

Every worker's epoll watches the one listening socket. Registered plainly, each new connection
wakes all of them; EPOLLEXCLUSIVE (epoll_ctl(2)) has the kernel wake one that waits. libev does not
know that flag, so its registration is replaced by our own, under the same key. Where that does not
work the plain registration stays, and only costs.

A worker that is full takes its registration away, and so does one that has more to do than the
idlest, for a moment: the kernel then wakes somebody else. That makes the listen queue the one
queue of the service, and the idlest workers its servers.
"""

from __future__ import annotations

import _socket
import errno
import logging
import os
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..net.stream import READ
from . import epoll
from .gauge import Gauge

log = logging.getLogger(__name__)

DEFER_SECONDS = 0.002  # for each connection that we have more than the idlest
MAX_DEFER_SECONDS = 0.02  # then accept anyway: the idlest may be stuck
FDINFO_BYTES = 65536  # some hundred registrations; ours is among the first
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
EXHAUSTED_SECONDS = 0.25
COMPLAIN_SECONDS = 10.0


class Gate:
    """Whether the kernel may wake this process for a connection.

    Args:
        loop: the gevent loop, whose watcher for `fd` has been started.
        fd: the listening socket.
    """

    def __init__(self, loop: Any, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._event: epoll.Event | None = None
        self.is_open = True
        # libev registers a watcher when the loop turns next. Should it ever make its epoll anew
        # (it does when it meets an event it cannot explain), ours is lost and made again.
        self._later = loop.timer(0)
        self._later.start(self._take_over)
        self._forked = loop.fork(ref=False)
        self._forked.start(self._start_over)

    @property
    def is_exclusive(self) -> bool:
        """The kernel wakes one process for each connection, not all."""
        return self._event is not None

    def open(self) -> None:
        """Take part in accepting."""
        if not self.is_open:
            self.is_open = True
            if self._event is not None:
                self._control(epoll.ADD)

    def shut(self) -> None:
        """Take no part, until `open`."""
        if self.is_open:
            self.is_open = False
            if self._event is not None:
                self._control(epoll.DEL)

    def close(self) -> None:
        """Give the registration up; to be called before `fd` is closed, as others hold it open."""
        self.shut()
        for watcher in (self._later, self._forked):
            watcher.stop()
            watcher.close()

    def leave(self) -> None:
        """Close, but leave the registration to the process that this one was forked from."""
        self._event = None
        self.close()

    def _take_over(self) -> None:
        key = self._registered_key()
        if key is None:
            return
        self._event = epoll.Event(epoll.IN | epoll.EXCLUSIVE, key)
        self._control(epoll.DEL)
        if self.is_open and not self._control(epoll.ADD):
            self._event.events = epoll.IN
            self._control(epoll.ADD)
            self._event = None

    def _start_over(self) -> None:
        self._event = None
        self._later.stop()
        self._later.start(self._take_over)

    def _registered_key(self) -> int | None:
        """The user data that libev registered our socket with, as proc(5) shows it."""
        try:
            info = os.open(f"/proc/self/fdinfo/{self._loop.fileno()}", os.O_RDONLY)
            try:
                words = os.read(info, FDINFO_BYTES).split()
            finally:
                os.close(info)
            # tfd: 8 events: 19 data: 100000008 ...
            for number, word in enumerate(words):
                if word == b"tfd:" and int(words[number + 1]) == self._fd:
                    return int(words[number + 5], 16)
        except (OSError, ValueError, IndexError):
            log.info("cannot accept exclusively", exc_info=True)
        return None

    def _control(self, operation: int) -> bool:
        assert self._event is not None
        return epoll.control(self._loop.fileno(), operation, self._fd, self._event)


class Acceptor:
    """Accepts connections as plain C sockets, one a turn of the loop, when it is our turn.

    Args:
        loop: the gevent loop.
        listener: this process's copy of the master's listening socket, non-blocking and not
            gevent's; closed by `finish`.
        take: called with each socket and its peer's address, in the hub.
        gauge: our load and our siblings'.
        is_full: nothing may be accepted now; when it becomes so, call `reconsider`.
        siblings: how many processes the service has, as configured; more are found.
        strict: accept only as the idlest of all, and reluctantly where nobody is idle (for
            services that run one task at a time).
    """

    def __init__(
        self,
        loop: Any,
        listener: Any,
        take: Callable[[Any, Any], None],
        gauge: Gauge,
        is_full: Callable[[], bool],
        *,
        siblings: int = 1,
        strict: bool = False,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._family = listener.family
        self._take = take
        self._gauge = gauge
        self._is_full = is_full
        self._is_strict = strict
        self._count = self._rows = siblings
        self._deferred = 0.0  # since when we wait for an idler sibling to accept; 0: we do not
        self._complained = 0.0
        self._burst = 0  # connections accepted in the last turn of the loop
        self._gate: Gate | None = None
        self.look: Callable[[], None] | None = None  # read now, without another turn of the loop
        self._watcher = loop.io(listener.fileno(), READ)
        self._wait = loop.timer(DEFER_SECONDS)

    def start(self) -> None:
        """Take part in accepting."""
        self._watcher.start(self._acceptable)
        self._gate = Gate(self._loop, self._listener.fileno())
        self.refresh()

    def refresh(self) -> None:
        """To be called every second: look for new siblings, and for a wake-up that was lost."""
        self._rows = max(self._count, self._gauge.siblings())
        gate = self._gate
        if gate is not None and gate.is_open:
            gate.shut()
            gate.open()  # registering anew has the kernel look at the queue
        self.reconsider()

    def _acceptable(self) -> None:
        """Accept one connection, if it is our turn, and see whose turn it is then.

        A busy process without siblings takes several: one more than came in the turn before.
        That saves it most turns of its loop where each task has a connection of its own.
        """
        most = self._burst + 1 if self._rows == 1 and self._gauge.connections > 1 else 1
        self._burst = 0
        while self._burst < most and self._gate is not None and self._gate.is_open:
            try:
                # The C base class's: it makes no Python socket, which is half of the cost.
                fd, address = self._listener._accept()
            except BlockingIOError:
                return  # a sibling was faster, or there are no more
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._exhausted(error)
                return  # else the peer has gone again, accept(2)
            self._burst += 1
            self._take(_socket.socket(self._family, _socket.SOCK_STREAM, 0, fd), address)
            self.reconsider()
            if self._rows > 1 and self.look is not None:
                self.look()  # where many processes share, what was sent is often there by now

    def reconsider(self) -> None:
        """Open or shut the gate, as the loads are now."""
        gate = self._gate
        if gate is None:
            return
        if self._is_full():
            self._deferred = 0.0
            gate.shut()
            self._gauge.on_change = self.reconsider
            return
        if self._rows > 1:
            excess, least = self._gauge.excess(self._rows)
            if self._is_strict and not excess and least:
                excess = 1  # all have as many: one of those may be just about to close
            if excess > (0 if self._is_strict else 1 + least // 8) and self._may_defer(excess):
                gate.shut()
                self._gauge.on_change = self.reconsider
                return
        self._deferred = 0.0
        self._gauge.on_change = None
        gate.open()

    def _may_defer(self, excess: int) -> bool:
        now = monotonic()
        if not self._deferred:
            self._deferred = now
        left = self._deferred + MAX_DEFER_SECONDS - now
        if left <= 0:
            return False
        self._wait.stop()
        self._wait = self._loop.timer(min(left, DEFER_SECONDS * excess))
        self._wait.start(self.reconsider)
        return True

    def _exhausted(self, error: OSError) -> None:
        """No descriptor is left: let some be closed before we try again."""
        assert self._gate is not None
        now = monotonic()
        if now - self._complained > COMPLAIN_SECONDS:
            self._complained = now
            log.error("cannot accept connections: %s", error.strerror)
        self._gate.shut()
        self._wait.stop()
        self._wait = self._loop.timer(EXHAUSTED_SECONDS)
        self._wait.start(self.reconsider)

    def leave(self) -> None:
        """This is a child that a task has forked: leave the accepting to the worker."""
        if self._gate is not None:
            self._gate.leave()
            self._stop()

    def finish(self) -> None:
        """Accept what is in the queue already, then never again."""
        if self._gate is None:
            return
        self._gate.close()
        self._stop()
        while True:
            try:
                fd, address = self._listener._accept()
            except OSError:
                break
            self._take(_socket.socket(self._family, _socket.SOCK_STREAM, 0, fd), address)
        self._watcher.close()
        self._listener.close()

    def _stop(self) -> None:
        self._gate = None
        self._gauge.on_change = None
        self._wait.stop()
        self._watcher.stop()
