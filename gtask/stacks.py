"""The stacks of processes that die of a fault or are killed as they are stuck, for the log.

Python writes them (`faulthandler`) while it must not do anything else, so not as a record. It
writes them to memory of one generation that has a descriptor, memfd_create(2): each process has a
region of that, and the master logs what is there when the process has ended.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
from collections.abc import Sequence

REGION_BYTES = 4 * 1024 * 1024  # of each process; what is not written takes no memory
ROWS = 65536  # of each service
READ_BYTES = 65536  # at a time
TAKEN_BYTES = 262144  # the most that is logged of one process


class Stacks:
    """The regions of one generation; made by the master before it forks the mold.

    Args:
        services: their names.
    """

    def __init__(self, services: Sequence[str]) -> None:
        self._services = list(services)
        self._fd = -1
        with contextlib.suppress(OSError):  # the kernel refuses; stacks then go to standard error
            self._fd = os.memfd_create("gtask-stacks")

    def catch_mold(self) -> None:
        """In the mold: have its stacks written there from now on."""
        self._catch(0)

    def catch(self, service: str, row: int) -> None:
        """The same in a worker."""
        self._catch(self._region(service, row))

    def take_mold(self) -> str:
        """What the mold has left; empty if it has left nothing."""
        return self._take(0)

    def take(self, service: str, row: int) -> str:
        """What the worker that had that row has left; the next one that gets the row begins anew."""
        return self._take(self._region(service, row))

    def close(self) -> None:
        """Let go of the memory."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _region(self, service: str, row: int) -> int:
        return 1 + self._services.index(service) * ROWS + row

    def _catch(self, region: int) -> None:
        try:
            # Opened once more, it has a position of its own.
            fd = os.open(f"/proc/self/fd/{self._fd}", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:
            fd = 2
        else:
            os.lseek(fd, region * REGION_BYTES, os.SEEK_SET)
        faulthandler.enable(fd)

    def _take(self, region: int) -> str:
        taken, start = b"", region * REGION_BYTES
        with contextlib.suppress(OSError):
            while len(taken) < REGION_BYTES:
                part = os.pread(self._fd, READ_BYTES, start + len(taken)).rstrip(b"\0")
                if not part:
                    break
                os.pwrite(self._fd, bytes(len(part)), start + len(taken))
                taken += part
        return taken[:TAKEN_BYTES].decode("utf-8", "backslashreplace").strip()
