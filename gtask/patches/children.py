"""Child processes: each is waited for by itself, on a pidfd, in whichever thread.

libev waits for all children at once, in a SIGCHLD handler of the main thread's loop, and so takes
the exit statuses of `multiprocessing` and of everybody else. The watchers here wait until the
kernel says that one process has ended (pidfd_open(2), Linux 5.3), and reap just that one.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent
from gevent.libev.corecext import loop as LibevLoop

from .. import native
from ..logs.loggers import get_logger
from .worlds import put

log = get_logger(__name__)

READ = 1
FIRST_POLL_SECONDS = 0.001
POLL_SECONDS = 0.05  # where there is no pidfd; also what waits for children of which none is named

KEPT_STATUSES = 256
GRACE_SECONDS = 0.05  # between the reaping of a child in one thread and another's learning of it
LOST = 255 << 8  # the status of a process that somebody has reaped who told nobody

_watched: dict[int, list[ChildWatcher]] = {}  # by process id
_statuses: dict[
    int, int
] = {}  # of what watchers have reaped, for who asks by `os.waitpid` after it


def open_pidfd(pid: int) -> int | None:
    """A descriptor that can be read once `pid` has ended; None if that cannot be had.

    Raises:
        ProcessLookupError: there is no such process.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except (AttributeError, OSError):  # an old kernel, a sandbox, no descriptor left
        return None


def is_pidfd_here() -> bool:
    """The kernel has pidfds."""
    descriptor = open_pidfd(os.getpid())
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


class ChildWatcher:
    """What `loop.child(pid)` gives; in place of gevent's, with the same face.

    Attributes:
        pid: which process; 0: any child of ours.
        rpid, rstatus: of the one that has ended, as of waitpid(2).
    """

    def __init__(self, loop: Any, pid: int, trace: int = 0, ref: bool = True) -> None:
        self.loop = loop
        self.pid = self.rpid = pid
        self.rstatus = 0
        self.ref = ref
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()
        self._watcher: Any = None
        self._pidfd: int | None = None
        self._learned = LOST

    @property
    def active(self) -> bool:
        """It waits."""
        return self._watcher is not None

    pending = False

    def start(self, callback: Callable[..., Any], *args: Any) -> None:
        """Call `callback(*args)`, once or, for any child, until stopped, when there is news."""
        self.callback, self.args = callback, args
        try:
            self._pidfd = open_pidfd(self.pid) if self.pid else None
        except ProcessLookupError:  # somebody has reaped it
            self._watch(self.loop.timer(0, ref=self.ref), self._tell_learned)
            return
        if self._pidfd is not None:
            self._watch(self.loop.io(self._pidfd, READ, ref=self.ref), self._look)
        else:
            timer = self.loop.timer(FIRST_POLL_SECONDS, POLL_SECONDS, ref=self.ref)
            self._watch(timer, self._look)
        _watched.setdefault(self.pid, []).append(self)

    def _watch(self, watcher: Any, callback: Callable[[], None]) -> None:
        self._watcher = watcher
        watcher.start(callback)

    def _look(self) -> None:
        try:
            pid, status = native.waitpid(self.pid or -1, os.WNOHANG)
        except ChildProcessError:  # another thread was faster, and may be about to tell
            if not self.pid:
                return  # there is no child just now
            self._unwatch()
            self._watch(self.loop.timer(GRACE_SECONDS, ref=self.ref), self._tell_learned)
            return
        if pid:
            _keep(pid, status)
            _others_learn(pid, status, self)
            self._tell(status, pid)

    def _tell(self, status: int, pid: int = 0) -> None:
        self.rpid, self.rstatus = pid or self.pid, status
        callback, args = self.callback, self.args
        if self.pid:
            self.stop()
        if callback is not None:
            callback(*args)

    def learn(self, status: int) -> None:
        """Another has reaped the process, in whichever thread."""
        self._learned = status
        self.loop.run_callback_threadsafe(self._tell_learned)

    def _tell_learned(self) -> None:
        if self.active:
            self._tell(self._learned)

    def stop(self) -> None:
        """Wait no more."""
        self.callback, self.args = None, ()
        self._unwatch()
        here = _watched.get(self.pid)
        if here and self in here:
            here.remove(self)
            if not here:
                del _watched[self.pid]

    close = stop

    def _unwatch(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.stop()
            watcher.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def __enter__(self) -> ChildWatcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _others_learn(pid: int, status: int, but: ChildWatcher | None = None) -> None:
    for watcher in list(_watched.get(pid, ())):
        if watcher is not but:
            watcher.learn(status)


def _keep(pid: int, status: int) -> None:
    _statuses[pid] = status
    if len(_statuses) > KEPT_STATUSES:
        del _statuses[next(iter(_statuses))]


def take_status(pid: int) -> int | None:
    """The status of a process that a watcher has reaped; told once, None if there is none."""
    until = monotonic() + GRACE_SECONDS
    while pid in _watched and pid not in _statuses and monotonic() < until:
        time.sleep(FIRST_POLL_SECONDS)  # it has reaped it just now, in another thread
    return _statuses.pop(pid, None)


def forget() -> None:
    """This is a forked process: those were its parent's children."""
    _watched.clear()
    _statuses.clear()


def reaped(pid: int, status: int) -> None:
    """To be called with what a wait of the user's has given, for who waits by a watcher."""
    if pid and pid in _watched and not os.WIFSTOPPED(status) and not os.WIFCONTINUED(status):
        _others_learn(pid, status)


class Loop(LibevLoop):
    """gevent's loop, but for child processes."""

    def __init__(self, flags: Any = None, default: Any = None) -> None:
        handler = native.getsignal(signal.SIGCHLD)
        super().__init__(flags, default)
        if self.default and handler is not None:
            # Whoever makes the default loop anew, as a rehearsal does, has libev's handler installed.
            native.signal(signal.SIGCHLD, handler)

    def child(self, pid: int, trace: int = 0, ref: bool = True) -> Any:
        """A watcher for the end of a child."""
        return ChildWatcher(self, pid, trace, ref)

    def install_sigchld(self) -> None:
        """Nothing: a handler would reap whatever ends."""


def install() -> None:
    """Have hubs that are made from now on use it."""
    put(gevent.config, loop=Loop)
    if not is_pidfd_here():
        log.warning(
            "no pidfd_open(2) here, which Linux 5.3 brought: child processes are looked at"
            " %d times a second",
            1 / POLL_SECONDS,
        )
