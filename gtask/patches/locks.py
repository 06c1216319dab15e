"""`Lock`: a lock that greenlets and native threads may share.

gevent's own is for the greenlets of one thread; used from several, it hangs or raises. All else that
the standard library has to wait with, `RLock`, `Condition`, `Event`, `Semaphore`, `queue` and
executors, is Python above this one.
"""

from __future__ import annotations

import _thread
import queue
import threading
from time import monotonic
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.exceptions import BlockingSwitchOutError
from greenlet import getcurrent

from .. import native
from .worlds import original, put

HUB_SECONDS = 0.01  # what the hub waits for another thread, as it cannot let its greenlets run
FOREVER = 1e9  # seconds; a timer, as a loop without one would end

_allocate: Any = original("_thread", "allocate_lock")


class Waiter:
    """A greenlet that waits until some thread wakes it.

    Args:
        hub: that of its thread.
    """

    __slots__ = ("_greenlet", "_hub", "_is_waiting", "_is_woken", "_thread")

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._greenlet = getcurrent()
        self._thread = native.thread_id()
        self._is_woken = self._is_waiting = False

    def wake(self) -> None:
        """Let it go on; any thread may call this."""
        self._is_woken = True
        loop = self._hub.loop
        if loop is None:
            return  # destroyed, with all that waited on it
        if native.thread_id() == self._thread:
            loop.run_callback(self._go_on)
        else:
            loop.run_callback_threadsafe(self._go_on)

    def wait(self, seconds: float | None) -> bool:
        """Wait until woken, None: for ever; False if the time is over."""
        until = None if seconds is None else monotonic() + seconds
        timer = self._hub.loop.timer(FOREVER if seconds is None else max(0.0, seconds))
        timer.start(self._go_on, update=True)
        try:
            while not self._is_woken and (until is None or monotonic() < until):
                self._is_waiting = True
                self._hub.switch()
        finally:
            self._is_waiting = False
            timer.stop()
            timer.close()
        woken, self._is_woken = self._is_woken, False
        return woken

    def _go_on(self) -> None:
        if self._is_waiting:
            self._greenlet.switch()


class Lock:
    """`threading.Lock`.

    Native threads wait on a native lock. Greenlets wait in a queue, so that their hub goes on; who
    releases wakes the first of them, which then tries its luck against the native threads.
    """

    __slots__ = ("__weakref__", "_native", "_try", "_waiters")

    def __init__(self) -> None:
        self._native = _allocate()
        self._try = self._native.acquire
        self._waiters: list[Waiter] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As of `threading.Lock`."""
        if timeout != -1:
            _check_timeout(blocking, timeout)
        if self._try(False):
            return True
        hub = get_hub_if_exists()
        if not blocking:
            if hub is not None and getcurrent() is not hub:
                gevent.sleep(0)  # so that a loop of tries lets others run
            return False
        if hub is None:
            return bool(self._try(True, timeout))
        if getcurrent() is hub:
            return self._wait_in_hub(timeout)
        return self._wait(Waiter(hub), None if timeout == -1 else monotonic() + timeout)

    __enter__ = acquire

    def release(self) -> None:
        """As of `threading.Lock`."""
        self._native.release()
        if self._waiters:
            self._wake_next()

    def __exit__(self, *_: object) -> None:
        self.release()

    def locked(self) -> bool:
        """Somebody has it."""
        return bool(self._native.locked())

    _is_owned = locked  # for `threading.Condition`, which else finds out by a try
    acquire_lock, release_lock, locked_lock = acquire, release, locked

    def _at_fork_reinit(self) -> None:
        self._native._at_fork_reinit()
        self._waiters.clear()

    def __repr__(self) -> str:
        state = "locked" if self.locked() else "unlocked"
        return f"<{state} gtask.patches.locks.Lock object at {id(self):#x}>"

    def _wait(self, waiter: Waiter, until: float | None) -> bool:
        """Wait in the queue until the moment `until`; monotonic, seconds."""
        place = len(self._waiters)
        try:
            while True:
                self._waiters.insert(place, waiter)
                if self._try(False):  # a release before the line above would have woken nobody
                    return True
                if not waiter.wait(None if until is None else until - monotonic()):
                    return bool(self._try(False))
                place = 0  # somebody was faster, but nobody else overtakes it
        finally:
            self._leave(waiter)

    def _leave(self, waiter: Waiter) -> None:
        try:
            self._waiters.remove(waiter)
        except ValueError:  # it was woken; if it does not take the lock, it is the next one's
            if self._waiters and not self.locked():
                self._wake_next()

    def _wake_next(self) -> None:
        try:
            waiter = self._waiters.pop(0)
        except IndexError:
            return  # another thread has woken it
        waiter.wake()

    def _wait_in_hub(self, timeout: float) -> bool:
        """What has the lock may be another thread, which will soon be through with it."""
        if self._try(True, HUB_SECONDS if timeout < 0 else min(timeout, HUB_SECONDS)):
            return True
        if timeout >= 0:
            return False
        raise BlockingSwitchOutError("a lock that is held cannot be waited for in the hub")


def _check_timeout(blocking: bool, timeout: float) -> None:
    if not blocking:
        raise ValueError("can't specify a timeout for a non-blocking call")
    if timeout < 0:
        raise ValueError("timeout value must be a non-negative number")
    if timeout > threading.TIMEOUT_MAX:
        raise OverflowError("timeout value is too large")


def install() -> None:
    """Make it the lock of the standard library, and give that its own classes above it back."""
    for module, names in (
        (_thread, ("allocate_lock", "allocate", "LockType", "lock")),
        (threading, ("_allocate_lock", "Lock", "_LockType", "_set_sentinel")),
    ):
        for name in names:
            if hasattr(module, name):
                setattr(module, name, Lock)
    put(threading, Event=original("threading", "Event"))
    for name in ("Queue", "LifoQueue", "PriorityQueue"):
        setattr(queue, name, original("queue", name))
    put(queue, SimpleQueue=queue._PySimpleQueue)  # type: ignore[attr-defined]
    _renew_existing()


def _renew_existing() -> None:
    """Replace locks of the standard library that were made before."""
    import concurrent.futures.thread as executors
    import logging

    put(threading, _active_limbo_lock=Lock())
    put(executors, _global_shutdown_lock=Lock())
    put(logging, _lock=threading.RLock())
    for reference in logging._handlerList:  # type: ignore[attr-defined]
        handler = reference()
        if handler is not None:
            handler.createLock()
