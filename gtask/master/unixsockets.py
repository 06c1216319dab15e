"""Files of unix sockets: how they are made and whose they are, and which of them may be replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import socket as flags
import stat
from dataclasses import dataclass

from ..native import socket


@dataclass(frozen=True)
class Owner:
    """Whose a file is, by their numbers; -1 is whoever makes it."""

    user: int = -1
    group: int = -1


WE = Owner()


def bind_unix(path: str, mode: int, owner: Owner = WE) -> socket:
    """A unix socket at `path`, whose file has `mode` from the start."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    listener = socket(flags.AF_UNIX, flags.SOCK_STREAM)
    before = os.umask(0o777 & ~mode)
    try:
        listener.bind(path)
        if owner != WE:
            _give(path, owner)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _give(path: str, owner: Owner) -> None:
    """Give the socket that we have just made to its owner.

    In a directory that others may write to, somebody could have put another file there by now. So
    it is looked at, and then given away, by a descriptor of it.

    Raises:
        OSError: we may not, or it is not that socket.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        is_new = stat.S_ISSOCK(status.st_mode) and status.st_nlink == 1
        if not is_new or status.st_uid != os.geteuid():
            raise OSError(errno.EEXIST, "was replaced by another file")
        os.chown(f"/proc/self/fd/{fd}", owner.user, owner.group)
    finally:
        os.close(fd)


def remove_stale(path: str, owner: Owner = WE) -> None:
    """Remove the socket file that a killed process left.

    Args:
        owner: whose it was, besides ours.

    Raises:
        OSError: EADDRINUSE if somebody listens there, EEXIST if it is no socket of ours.
    """
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise FileExistsError(errno.EEXIST, "exists and is not a socket", path)
    if is_listened_to(path):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if status.st_uid not in (os.geteuid(), owner.user):
        whose = user_name(status.st_uid)
        raise FileExistsError(errno.EEXIST, f"exists and is a socket of {whose}", path)
    os.unlink(path)


def is_listened_to(path: str) -> bool:
    """Somebody listens there, or may."""
    with socket(flags.AF_UNIX, flags.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except OSError:
            pass  # e.g. the queue of a listener is full
    return True


def user_name(uid: int) -> str:
    """For people: ``user nobody``, or the number where it has no name."""
    with contextlib.suppress(KeyError):
        return f"user {pwd.getpwuid(uid).pw_name}"
    return f"user {uid}"
