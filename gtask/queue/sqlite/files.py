"""The files of a store: who may write, on which file systems, with which mode."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Any

from ... import native
from ...errors import StoreUnavailable

LOCK_POLL_SECONDS = 0.05
REFUSED_FILE_SYSTEMS = ("nfs", "cifs", "smb", "9p", "fuse", "afs", "ceph", "glusterfs", "lustre")

# An fcntl lock is the process's: threads of one process tell each other here. Native locks, as
# what is done under them blocks a native thread.
_held: set[str] = set()
_guard: Any = native.allocate_lock()


def _forget_parent() -> None:
    """In a forked child: an fcntl lock is not inherited, fcntl(2), so nothing is held."""
    global _guard
    _guard = native.allocate_lock()
    _held.clear()


os.register_at_fork(after_in_child=_forget_parent)


def unavailable(reason: str, message: str, accepted: str = "no") -> StoreUnavailable:
    """The error for a store that cannot be used."""
    return StoreUnavailable(message, {"reason": reason, "accepted": accepted})


class StoreLock:
    """The right to write to a store; held by one process, and in it by one of these, at a time.

    It is a lock on a file of its own, as SQLite takes and drops its locks on the database's.

    Args:
        path: of the store.
        mode: of a lock file that is made.
    """

    def __init__(self, path: str, mode: int) -> None:
        self._path = path + ".lock"
        self._mode = mode
        self._fd = -1

    def take(self) -> bool:
        """Take it without waiting; False if another holds it.

        Raises:
            StoreUnavailable: the file cannot be made or opened.
        """
        with _guard:
            if self._path in _held:
                return False
            _held.add(self._path)
        try:
            is_taken = self._lock_file()
        except BaseException:
            self._forget()
            raise
        if not is_taken:
            self._forget()
        return is_taken

    def wait(self, seconds: float) -> bool:
        """Take it within so many seconds; blocks the native thread."""
        while not self.take():
            if seconds <= 0:
                return False
            native.sleep(LOCK_POLL_SECONDS)
            seconds -= LOCK_POLL_SECONDS
        return True

    def release(self) -> None:
        """Let others have it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._forget()

    def _forget(self) -> None:
        with _guard:
            _held.discard(self._path)

    def _lock_file(self) -> bool:
        try:
            fd = open_with_mode(self._path, self._mode)
        except OSError as error:
            raise cannot_open(self._path, error) from error
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(fd)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            raise cannot_open(self._path, error) from error
        self._fd = fd
        return True


def cannot_open(path: str, error: OSError) -> StoreUnavailable:
    """The error for a file of a store that the kernel does not give us."""
    reasons = {errno.EROFS: "read_only", errno.EACCES: "read_only", errno.ENOSPC: "disk_full"}
    reason = reasons.get(error.errno or 0, "unreachable")
    return unavailable(reason, f"{path}: {error.strerror}")


def open_with_mode(path: str, mode: int) -> int:
    """A descriptor of the file, which is made with that mode if there is none, whatever the umask.

    Raises:
        OSError: it cannot be opened or made.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(FileNotFoundError):
        return os.open(path, flags)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:  # somebody was quicker
        return os.open(path, flags)
    os.fchmod(fd, mode)
    sync_folder(path)
    return fd


def sync_folder(path: str) -> None:
    """Make the name of a new file safe, fsync(2)."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def refuse_network(path: str) -> None:
    """Refuse file systems on which locks or the shared index of a log are not reliable.

    Raises:
        StoreUnavailable: it is on one.
    """
    kind = file_system(path)
    if kind.startswith(REFUSED_FILE_SYSTEMS):
        raise unavailable(
            "unreachable", f"{path}: a store cannot be on {kind}, only on a local disk"
        )


def file_system(path: str, mounts: str = "/proc/self/mountinfo") -> str:
    """The type of the file system that holds `path`; empty if that cannot be told."""
    folder = os.path.realpath(os.path.dirname(path))
    best, kind = -1, ""
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            before, _, after = line.partition(" - ")  # proc_pid_mountinfo(5)
            mounted = before.split(" ")[4].replace("\\040", " ")
            prefix = mounted.rstrip("/") + "/"
            if (folder + "/").startswith(prefix) and len(prefix) >= best:
                best, kind = len(prefix), after.split(" ")[0]
    return kind


def inode(path: str) -> tuple[int, int]:
    """Which file it is that has this name now; (0, 0) if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino
