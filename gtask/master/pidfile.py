"""The pid file, locked by the process it names: a file without a lock is a stale one.

The lock is of the kind that belongs to a process (fcntl(2), `F_SETLK`) and not to the open file, so
that no child of ours holds it, whoever survives whom; and the kernel tells who holds it. Whoever may
write the file can lock it for writing, and is believed; a lock for reading is a stranger's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from .ownfiles import OwnFile

TEXT_BYTES = 20  # more than any process id and its line feed

_FLOCK = struct.Struct("hhqqi4x")  # type, whence, start, length, pid: fcntl(2)


class AlreadyRunning(Exception):
    """Another master holds the pid file; the message says which."""


class PidFile:
    """Held from `take` to `release`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1
        self._file: OwnFile | None = None

    def take(self) -> None:
        """Write our id into the file.

        Raises:
            AlreadyRunning: the file is another live process's.
            OSError: it cannot be written, or is no pid file of ours.
        """
        self.path = os.path.abspath(self.path)  # the working directory may change
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        while self._fd < 0:
            self._fd = self._open_locked()
        os.fchmod(self._fd, 0o644)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        self._file = OwnFile(self.path)

    def _open_locked(self) -> int:
        """The file at the path, locked; -1 if there is another one by now."""
        fd = _open(self.path)
        try:
            _check(fd, self.path)
            if _lock(fd) and self._is_at_path(fd):
                kept, fd = fd, -1
                return kept
            if self._is_at_path(fd):
                self._set_aside(fd)
            return -1
        finally:
            if fd >= 0:
                os.close(fd)

    def _set_aside(self, fd: int) -> None:
        """Somebody else has a lock: a master, or a stranger who shall not keep us from starting."""
        holder = _writer(fd)
        if holder is not None:
            raise AlreadyRunning(f"already running as process {max(holder, 0) or _text(fd) or '?'}")
        os.unlink(self.path)

    def release(self) -> None:
        """Remove the file, if it is still ours, and give the lock up."""
        if self._file is not None:
            self._file.remove()
        self.close()

    def close(self) -> None:
        """Give it up without removing it; for children."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd, self._file = -1, None

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.lstat(self.path))
        except FileNotFoundError:
            return False


def running_pid(path: str) -> int:
    """The id of the process that holds the pid file, as we see it; 0 if none does.

    In another namespace of processes it has another number than in the file, or none at all.
    """
    if not path:
        return 0
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        return max(0, _writer(fd) or 0)
    except OSError:
        return 0
    finally:
        os.close(fd)


def _open(path: str) -> int:
    # Not blocking: at the path may be a pipe.
    options = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(path, options, 0o644)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise FileExistsError(errno.EEXIST, "exists and is not a pid file", path) from None
        raise


def _check(fd: int, path: str) -> None:
    """See that it is a file of ours, and holds a process id or nothing."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1 or not _is_number(fd):
        raise FileExistsError(errno.EEXIST, "exists and is not a pid file", path)
    if status.st_uid != os.geteuid():
        raise FileExistsError(errno.EEXIST, "exists and is another user's", path)


def _is_number(fd: int) -> bool:
    data = os.pread(fd, TEXT_BYTES + 1, 0)
    return len(data) <= TEXT_BYTES and (not data.strip() or data.strip().isdigit())


def _text(fd: int) -> str:
    return os.pread(fd, TEXT_BYTES, 0).decode(errors="replace").strip()


def _lock(fd: int) -> bool:
    try:
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _writer(fd: int) -> int | None:
    """The process that has locked the file for writing; None if there is none.

    0 is one that our namespace of processes does not show, -1 a lock that belongs to no process.
    """
    query = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    return None if kind == fcntl.F_UNLCK else int(pid)
