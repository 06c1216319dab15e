"""`Gate`: whether the kernel may wake this process for a connection to the shared listening socket.

Every worker's epoll watches the one listening socket. Registered plainly, each new connection
wakes all of them; EPOLLEXCLUSIVE (epoll_ctl(2)) has the kernel wake one that waits. libev does not
know that flag, so its registration is replaced by our own, under the same key. Where that does not
work the plain registration stays, and only costs.
"""

from __future__ import annotations

import os
from typing import Any

from ..logs.loggers import get_logger
from . import epoll

log = get_logger(__name__)

FDINFO_BYTES = 65536  # some hundred registrations; ours is among the first


class Gate:
    """The registration of the listening socket in the loop's epoll.

    Args:
        loop: the gevent loop, whose watcher for `fd` has been started.
        fd: the listening socket.
    """

    def __init__(self, loop: Any, fd: int) -> None:
        self._loop = loop
        self._fd = fd
        self._event: epoll.Event | None = None
        self._linked: list[Gate] = []
        self.is_open = True
        # libev registers a watcher when the loop turns next. Should it ever make its epoll anew
        # (it does when it meets an event it cannot explain), ours is lost and made again.
        self._later = loop.timer(0)
        self._later.start(self._take_over)
        self._forked = loop.fork(ref=False)
        self._forked.start(self._start_over)

    def link(self, gate: Gate) -> None:
        """Open and shut another one with this, where a service has several listening sockets."""
        self._linked.append(gate)

    def open(self) -> None:
        """Take part in accepting."""
        if not self.is_open:
            self.is_open = True
            if self._event is not None:
                self._control(epoll.ADD)
            for gate in self._linked:
                gate.open()

    def shut(self) -> None:
        """Take no part, until `open`."""
        if self.is_open:
            self.is_open = False
            if self._event is not None:
                self._control(epoll.DEL)
            for gate in self._linked:
                gate.shut()

    def close(self) -> None:
        """Give the registration up; to be called before `fd` is closed, as others hold it open."""
        self.shut()
        for watcher in (self._later, self._forked):
            watcher.stop()
            watcher.close()

    def after_fork_in_child(self) -> None:
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
        except (OSError, ValueError, IndexError) as error:
            log.info("cannot accept exclusively: %s", error)
        return None

    def _control(self, operation: int) -> bool:
        assert self._event is not None
        return epoll.control(self._loop.fileno(), operation, self._fd, self._event)
