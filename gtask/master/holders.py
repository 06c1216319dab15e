"""Which process listens at an address that is taken, as far as /proc shows it to us."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..address import Address

TCP_LISTEN = "0A"  # the state's number in proc_net_tcp(5)


def holder(address: Address) -> str:
    """The listening process, e.g. ``process 1234 (nginx)``; empty if we may not see it.

    What this process has open is its own, and its children's: it is not the one that is in the way.
    """
    wanted = {f"socket:[{inode}]" for inode in _listening_inodes(address)}
    wanted -= set(_open_files("self") if wanted else ())
    for pid in filter(str.isdigit, os.listdir("/proc") if wanted else ()):
        with contextlib.suppress(OSError):  # it is another user's, or has just ended
            if any(file in wanted for file in _open_files(pid)):
                return f"process {pid} ({_command_name(pid)})"
    return ""


def _open_files(pid: str) -> Iterator[str]:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            yield os.readlink(f"/proc/{pid}/fd/{fd}")


def _command_name(pid: str) -> str:
    with open(f"/proc/{pid}/comm") as comm:
        return comm.read().strip()


def _listening_inodes(address: Address) -> set[str]:
    """The inode numbers of the sockets that listen there."""
    if address.is_unix:
        rows = [row for row in _table("unix") if row[-1] == address.path]
        return {row[6] for row in rows}
    rows = [row for table in ("tcp", "tcp6") for row in _table(table) if row[3] == TCP_LISTEN]
    return {row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == address.port}


def _table(name: str) -> list[list[str]]:
    """The rows of a table in /proc/net, without its head; none if it cannot be read."""
    try:
        with open(f"/proc/net/{name}") as lines:
            return [line.split() for line in lines][1:]
    except OSError:
        return []
