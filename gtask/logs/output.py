"""Where lines of the log go: a file, or standard error. Nothing here ever waits.

What cannot be written at once, since the reader of a pipe is slow, is kept, up to a limit. What
cannot be written at all is lost: the disk is full, the reader has gone, standard error is closed.
How many lines that were is told as soon as one can be written.
"""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import stat
import time
from collections import deque
from collections.abc import Callable, Iterator

from .. import native

KEPT_LINES = 10_000
KEPT_BYTES = 8 * 1024 * 1024
LOCK_SECONDS = 1.0  # after which a lock is taken to be held for ever
FLUSH_STEP_SECONDS = 0.01
PIPE_BYTES = 4096  # what a pipe that has room takes at once, pipe(7)

Identity = tuple[int, int]  # of a file: device and inode

_NEW = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK


class Output:
    """Base of both; subclasses implement `_send`.

    Attributes:
        lost: lines that were lost and not told of yet.
        tell_lost: makes the line that tells how many lines were lost.
    """

    def __init__(self) -> None:
        self.lost = 0
        self.tell_lost: Callable[[int], bytes] = lambda count: b"%d lines were lost\n" % count
        self._start_over()

    def _start_over(self) -> None:
        self._pid = os.getpid()
        self._lock = native.RLock()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._is_sending = False
        self._is_begun = False  # the first line that is kept has been written in part
        self._is_torn = False  # such a line was lost: its beginning needs an end
        self._telling = 0  # lost lines that the first line tells of

    def write(self, line: bytes) -> None:
        """Write a line, its end included; from any native thread."""
        if self._pid != os.getpid():
            self._start_over()  # a fork: what is kept is the parent's to write, and so is its lock
        with self._locked():
            self._kept.append(line)
            self._kept_bytes += len(line)
            self._send_all()
            while len(self._kept) > KEPT_LINES or self._kept_bytes > KEPT_BYTES:
                self._drop()

    def flush(self, seconds: float = 0.0) -> None:
        """Write what is kept; for at most so many seconds, in which the process stands still."""
        end = time.monotonic() + seconds
        while self._kept and self._pid == os.getpid():
            with self._locked():
                self._send_all()
            if not self._kept or time.monotonic() >= end:
                return
            native.sleep(FLUSH_STEP_SECONDS)

    def reopen(self) -> None:
        """Take what has the output's name now, and make it if need be; for the master."""

    def follow(self) -> None:
        """Take what has the output's name now."""

    def fileno(self) -> int:
        """The descriptor that is written to."""
        raise NotImplementedError

    def close(self) -> None:
        """Close it, where it is ours."""

    def _send(self, data: bytes) -> int:
        """Write some of it; returns how much.

        Raises:
            BlockingIOError: nothing can be written now.
            OSError: it cannot be written at all.
        """
        raise NotImplementedError

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        # A signal's handler may find its own thread in the middle of a write: RLock, `_is_sending`.
        is_ours = self._lock.acquire(timeout=LOCK_SECONDS)
        try:
            yield
        finally:
            if is_ours:
                self._lock.release()

    def _send_all(self) -> None:
        if self._is_sending:
            return
        self._is_sending = True
        try:
            while self._kept and self._send_one():
                pass
        finally:
            self._is_sending = False

    def _send_one(self) -> bool:
        """Write the first line that is kept; False if nothing more can be written now."""
        if self.lost and not self._telling and not self._is_begun:
            self._keep_first(self.tell_lost(self.lost))
            self._telling, self.lost = self.lost, 0
        line = self._kept[0]
        try:
            sent = self._send(line)
        except BlockingIOError:
            return False
        except OSError:
            while self._kept:
                self._drop()
            return False
        self._kept_bytes -= sent
        self._is_begun = sent < len(line)
        if self._is_begun:
            self._kept[0] = line[sent:]
        else:
            self._kept.popleft()
            self._telling = 0
        return True

    def _keep_first(self, line: bytes) -> None:
        if self._is_torn:
            self._is_torn = False
            line = b"\n" + line
        self._kept.appendleft(line)
        self._kept_bytes += len(line)

    def _drop(self) -> None:
        self._kept_bytes -= len(self._kept.popleft())
        self.lost += self._telling or 1
        self._telling = 0
        self._is_torn |= self._is_begun
        self._is_begun = False


class LogFile(Output):
    """A file that is appended to; where another file has its name now, that one is.

    Each process looks for itself, so that no signal has to reach it. It makes no file in the place
    of one that was renamed: that is for `reopen`, when whoever renames is through.

    Args:
        path: of the file; its folder is made if need be.
        owner: the user id that is to be able to open it, too, or -1.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: str, owner: int = -1) -> None:
        super().__init__()
        self.path = os.path.abspath(path)
        self._owner = owner
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        self._fd = open_log(self.path, owner)
        self._identity = _identity(os.fstat(self._fd))

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)

    def reopen(self) -> None:
        """Take the file that has the name now, and make it if there is none.

        Raises:
            OSError: it cannot be opened; the old one is kept.
        """
        self._take(open_log(self.path, self._owner))

    def follow(self) -> None:
        """Take the file that has the name now; where that cannot be opened, stay with the old one."""
        if not self._is_open:
            self.reopen()  # somebody has closed it, and its number may be another file's by now
            return
        with contextlib.suppress(OSError):
            if _identity(os.stat(self.path)) != self._identity:
                _check_link(self.path)
                self._take(os.open(self.path, _NEW))

    def _send(self, data: bytes) -> int:
        self.follow()
        return os.write(self._fd, data)

    @property
    def _is_open(self) -> bool:
        try:
            return _identity(os.fstat(self._fd)) == self._identity
        except OSError:
            return False

    def _take(self, new: int) -> None:
        for standard in (1, 2):  # of a daemon, they are the log
            with contextlib.suppress(OSError):
                if _identity(os.fstat(standard)) == self._identity:
                    os.dup2(new, standard)
        if self._is_open:  # under the same number, in one step
            os.dup2(new, self._fd, inheritable=False)
            os.close(new)
        else:
            self._fd = new
        self._identity = _identity(os.fstat(self._fd))


class Stderr(Output):
    """Standard error as it is at the first line; the descriptor that is then written to is ours.

    Number 2 may be closed by a user's code, and then be the next connection's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._identity: Identity | None = None
        self._fd = -1
        self._socket: _socket.socket | None = None
        self._may_block = False

    def fileno(self) -> int:
        return 2

    def follow(self) -> None:
        """Have a descriptor of our own now: there may be none left when there is something to say."""
        if not self._is_open:
            self._adopt()

    def close(self) -> None:
        if self._is_open:
            os.close(self._fd)
        self._forget()

    def _send(self, data: bytes) -> int:
        if not self._is_open:
            self._adopt()
        if self._socket is not None:
            return self._socket.send(data, _socket.MSG_DONTWAIT)
        if self._may_block:
            if not _takes_more(self._fd):
                raise BlockingIOError
            data = data[:PIPE_BYTES]
        return os.write(self._fd, data)

    @property
    def _is_open(self) -> bool:
        """Our descriptor is what it was; somebody may have closed all there are."""
        try:
            return self._fd >= 0 and _identity(os.fstat(self._fd)) == self._identity
        except OSError:
            return False

    def _adopt(self) -> None:
        """See how to write to it without waiting, and without changing it for others that have it.

        Raises:
            OSError: it is closed, or something else by now.
        """
        found = os.fstat(2)
        if self._identity not in (None, _identity(found)):
            raise OSError(errno.EBADF, "is not what it was")
        self._forget()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISSOCK(found.st_mode):
            try:  # opened once more, a pipe or a terminal has flags of our own
                self._fd = os.open("/proc/self/fd/2", _NEW)
            except OSError:
                self._may_block = True
        if self._fd < 0:
            self._fd = os.dup(2)
        if stat.S_ISSOCK(found.st_mode):
            self._socket = _socket.socket(fileno=self._fd)
        self._identity = _identity(found)

    def _forget(self) -> None:
        if self._socket is not None:
            self._socket.detach()
        self._fd, self._socket, self._may_block = -1, None, False


def open_log(path: str, owner: int) -> int:
    """Open a log file, and make it if there is none.

    Where we are root and the file lies in a folder that only root may write to, it is given to
    `owner`, so that his processes can open it, too. (In any other folder somebody could have put
    another file in its place.)

    Raises:
        OSError: it cannot be opened.
    """
    _check_link(path)
    fd = os.open(path, _NEW | os.O_CREAT, 0o666)
    if owner >= 0 and os.geteuid() == 0:
        with contextlib.suppress(OSError):
            found, folder = os.fstat(fd), os.stat(os.path.dirname(path))
            is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
            is_safe = folder.st_uid == 0 and not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if is_plain and is_safe and found.st_uid != owner and not os.path.islink(path):
                os.fchown(fd, owner, -1)
    return fd


def _check_link(path: str) -> None:
    """A link leads to where its owner likes: ours and root's are followed, as /dev/stdout, and no
    stranger's.

    Raises:
        OSError: it is a stranger's.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "is a link of another user's", path)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _takes_more(fd: int) -> bool:
    poll = native.poll()
    poll.register(fd, 4)  # POLLOUT, poll(2); gevent takes the names out of `select`
    return bool(poll.poll(0))
