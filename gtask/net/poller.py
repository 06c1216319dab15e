"""Many streams behind one watcher: an epoll of their own, which the loop watches.

A watcher of the loop for each stream would cost a call from C, by way of gevent, for each read.
Here one such call is for all that can be read, and streams are registered edge-triggered, so that
the kernel need not look at each once more after its read. epoll(7) tells the rules: after an edge,
what is there is taken until a read is not full, or else the edge is asked for again.

A child that a task forks shares the epoll, so it must not wait on it (`after_fork_in_child`). It
also holds registrations: an edge told of a stream that is closed is nobody's, or a read with nothing to read.
"""

from __future__ import annotations

from _socket import AF_UNIX
from collections.abc import Callable
from typing import Any, Final

from gevent import monkey

from ..compiled import mypyc_attr
from ..logs.loggers import get_logger
from .stream import OPEN, READ, READ_BYTES, Stream

log = get_logger(__name__)

MOST: Final = 128  # streams that are read before they are served

_IN: Final = 0x001  # select.EPOLLIN and so on, which gevent takes out of that module
_PRI: Final = 0x002
_RDHUP: Final = 0x2000
_EDGE: Final = 1 << 31
_EVENTS: Final = _IN | _PRI | _RDHUP | _EDGE


class Poller:
    """The epoll of a loop.

    Args:
        loop: the gevent loop.
        serve: called after each round of reads, in the hub.
    """

    def __init__(self, loop: Any, serve: Callable[[], None]) -> None:
        self._epoll: Any = monkey.get_original("select", "epoll")()
        self._wait: Any = self._epoll.poll
        self._serve = serve
        self._streams: list[PolledStream | None] = []  # by their descriptors
        self._watcher: Any = loop.io(self._epoll.fileno(), READ)
        self._watcher.start(self.poll)

    def close(self) -> None:
        """Tell no stream of anything more."""
        self._watcher.stop()
        self._watcher.close()
        self._epoll.close()

    def after_fork_in_child(self) -> None:
        """Take no edge from the process that this one was forked from."""
        self._watcher.stop()
        self._epoll.close()

    def add(self, fd: int, stream: PolledStream) -> None:
        """Have `stream` told when there is something to read."""
        streams = self._streams
        while fd >= len(streams):
            streams.append(None)
        streams[fd] = stream
        self._epoll.register(fd, _EVENTS)

    def again(self, fd: int) -> None:
        """Have it told once more, if there is something now."""
        self._epoll.modify(fd, _EVENTS)

    def remove(self, fd: int) -> None:
        """Tell it of nothing more. The kernel's registration goes when `fd` is closed."""
        self._streams[fd] = None

    def poll(self) -> None:
        """Read and serve what there is now; hub only."""
        streams = self._streams
        ready: list[tuple[int, int]] = self._wait(0, MOST)
        for fd, events in ready:
            stream = streams[fd]
            if stream is not None:
                self._read(stream, events)
        self._serve_all()

    def read(self, stream: PolledStream) -> None:
        """Read and serve what has come on this one, without asking the kernel about the others."""
        self._read(stream, stream._usual_events)
        self._serve_all()

    def _read(self, stream: PolledStream, events: int) -> None:
        try:
            stream._may_read(events)
        except BaseException:  # the others' edges must not be lost with it
            stream._abort("reading failed")
            log.exception("reading failed")

    def _serve_all(self) -> None:
        try:
            self._serve()
        except BaseException:  # gevent stops a watcher whose callback raises
            log.exception("serving failed")


@mypyc_attr(allow_interpreted_subclasses=True)
class PolledStream(Stream):
    """A stream that is read when a poller says so."""

    __slots__ = ("_fd", "_is_deaf", "_poller", "_usual_events")

    def __init__(self, reactor: Any, poller: Poller) -> None:
        Stream.__init__(self, reactor)
        self._poller = poller
        self._fd = -1
        self._is_deaf = False
        self._usual_events = _IN

    def _watch(self) -> None:
        self._fd = self._socket.fileno()
        if self._socket.family == AF_UNIX:
            self._usual_events = 0  # a descriptor that is passed along ends a read, too
        self._poller.add(self._fd, self)

    def _unwatch(self) -> None:
        self._is_deaf = True
        self._poller.remove(self._fd)

    def _pause(self) -> None:
        self._is_deaf = True

    def _resume(self) -> None:
        if self._is_deaf and self.state is OPEN:
            self._is_deaf = False
            self._poller.again(self._fd)

    def _may_read(self, events: int) -> None:
        """There was an edge: more came, or the end, or what the peer calls urgent."""
        if not self._is_deaf:
            size = self._readable()
            # After a read that gave nothing there is nothing, or the end was heard.
            if size and (size == READ_BYTES or events != self._usual_events) and not self._is_deaf:
                self._poller.again(self._fd)
