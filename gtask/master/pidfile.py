"""The pid file, locked by the process it names: a file without a lock is a stale one."""

from __future__ import annotations

import contextlib
import fcntl
import os


class AlreadyRunning(Exception):
    """Another master holds the pid file; the message says which."""


class PidFile:
    """Held from `take` to `release`.

    The lock is of the kind that belongs to the process (lockf) and not to the open file, so that no
    child of ours holds it, whoever survives whom.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = -1

    def take(self) -> None:
        """Write our id into the file.

        Raises:
            AlreadyRunning: the file is another live process's.
            OSError: it cannot be written.
        """
        self.path = os.path.abspath(self.path)  # the working directory may change
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        while True:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                holder = os.read(fd, 20).decode(errors="replace").strip()
                os.close(fd)
                raise AlreadyRunning(f"already running as process {holder or '?'}") from None
            if self._is_at_path(fd):
                break
            os.close(fd)  # its holder has removed it between our opening and locking it
        os.fchmod(fd, 0o644)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._fd = fd

    def release(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        """Give it up without removing it; for children."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _is_at_path(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), os.stat(self.path))
        except FileNotFoundError:
            return False


def running_pid(path: str) -> int:
    """The id of the process that holds the pid file; 0 if none does."""
    try:
        with open(path) as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return int(file.read() or 0)
    except (OSError, ValueError):
        pass
    return 0
