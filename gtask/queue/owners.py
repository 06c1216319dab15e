"""Which process holds tasks, and whether it provably lives no more: by /proc and pidfds, never by silence."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import struct

from .records import Identity


@functools.cache
def boot_id() -> str:
    """Of this start of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def pid_namespace() -> str:
    """In which process ids are counted as ours are."""
    return os.readlink("/proc/self/ns/pid")


def start_time(pid: int) -> int:
    """When the process began, in ticks since the machine's start; 0 if there is none."""
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
        if fields[0] not in "ZX":  # a zombie runs nothing any more
            return int(fields[19])  # starttime: 22 in proc_pid_stat(5)
    return 0


def own_identity() -> Identity:
    """This process's."""
    return Identity(boot_id(), pid_namespace(), os.getpid(), start_time(os.getpid()))


def is_visible(identity: Identity) -> bool:
    """Whether the process would be seen here if it lived."""
    return identity.boot_id == boot_id() and identity.pid_namespace == pid_namespace()


def is_provably_dead(identity: Identity) -> bool:
    """The machine was started anew since, or the process is not there."""
    if identity.boot_id != boot_id():
        return True
    return is_visible(identity) and start_time(identity.pid) != identity.start_time


def open_pidfd(identity: Identity) -> int:
    """A descriptor that can be read when the process has ended; -1 if there is none to be had."""
    if not is_visible(identity):
        return -1
    try:
        fd = os.pidfd_open(identity.pid)
    except OSError:
        return -1
    if start_time(identity.pid) != identity.start_time:  # its number is another's by now
        os.close(fd)
        return -1
    return fd


def peer_pid(connection: socket.socket) -> int:
    """The process at the other end of a unix socket, unix(7); 0 if it is in another namespace."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    pid: int = struct.unpack("3i", credentials)[0]
    return pid
