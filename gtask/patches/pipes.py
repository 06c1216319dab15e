"""Pipes and locks of `multiprocessing`: a greenlet that waits for another process lets others go on.

Their waits are read(2), write(2) and sem_wait(3), which gevent does not see.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from multiprocessing.synchronize import SemLock
from time import monotonic
from typing import Any

import gevent
from gevent.socket import wait_read, wait_write

from .. import native
from .children import FIRST_POLL_SECONDS, POLL_SECONDS
from .worlds import may_wait, put

READ, WRITE = 1, 4  # poll(2)
ROOM_BYTES = 4096  # PIPE_BUF: what goes into a pipe that can be written to, pipe(7)


def read(fd: int, size: int) -> bytes:
    """`os.read`."""
    _wait(fd, READ)
    return os.read(fd, size)


def write(fd: int, data: Any) -> int:
    """`os.write`; in a greenlet no more than goes in at once."""
    if may_wait():
        wait_write(fd)
        return os.write(fd, data[:ROOM_BYTES])
    _wait(fd, WRITE)
    return os.write(fd, data)


def _wait(fd: int, event: int) -> None:
    if may_wait():
        wait_read(fd)
    else:  # a pipe may be one that does not block, if gevent's socketpair has made it
        poll = native.poll()
        poll.register(fd, event)
        poll.poll()


def acquire(semaphore: Any, block: bool = True, timeout: float | None = None) -> bool:
    """`SemLock.acquire`."""
    own: Any = semaphore._semlock
    if not block or not may_wait():
        return bool(own.acquire(block, timeout))
    until = None if timeout is None else monotonic() + timeout
    pause = FIRST_POLL_SECONDS
    while not own.acquire(False):
        if until is not None and monotonic() >= until:
            return False
        gevent.sleep(pause)
        pause = min(2 * pause, POLL_SECONDS)
    return True


def _make_methods(semaphore: Any) -> None:
    semaphore.acquire = acquire.__get__(semaphore)
    semaphore.release = semaphore._semlock.release


def install() -> None:
    """Make them those of `multiprocessing`."""
    put(Connection._recv, __defaults__=(read,))  # type: ignore[attr-defined]
    put(Connection._send, __defaults__=(write,))  # type: ignore[attr-defined]
    put(SemLock, _make_methods=_make_methods, __enter__=acquire)
