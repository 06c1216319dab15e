"""`LogQueue`: where the handlers of the user's get gtask's records, in a greenlet of their own.

A handler may wait for a network, a filter for a lock: neither the hub nor a task waits for them.
In a worker process all records go this way; in any other program those that are made in a hub or in
a greenlet of gtask's, and those behind them. A handler that waits for ever costs its records and nothing else.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import gevent
from greenlet import getcurrent, greenlet

from .. import native
from ..logs.delivery import complain, defer_by, tell
from ..logs.formats import exception_text
from ..logs.handler import own_handler

MOST_RECORDS = 10_000  # that wait for the handlers; beyond that the oldest are dropped
MOST_CHARACTERS = 8_000_000  # of their messages and tracebacks
MOST_EXCEPTIONS = 100  # that are kept as such, as their frames hold what tasks were given
EXIT_SECONDS = 1.0  # what the end of a program may wait for handlers
STEP_SECONDS = 0.01


class _Entry(NamedTuple):
    record: logging.LogRecord
    hand_out: Callable[[], None]
    size: int
    had_exception: bool


class LogQueue:
    """The records of one hub, or of a whole worker process, that handlers have not had yet.

    Args:
        hub: gevent's, in which the greenlet runs.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.forget()

    def forget(self) -> None:
        """Begin, or begin again in a forked child: what waits is its parent's."""
        self.pid = os.getpid()
        self._thread = native.thread_id()
        self._lock = native.RLock()  # of what follows; never held while anything waits
        self._entries: deque[_Entry] = deque()
        self._size = 0
        self._exceptions = 0
        self._dropped = 0
        self._is_awake = False
        self._greenlet: greenlet | None = None

    @property
    def is_busy(self) -> bool:
        """Records wait, or a handler has one."""
        return self._is_awake

    def put(self, record: logging.LogRecord, hand_out: Callable[[], None]) -> None:
        """Have `hand_out` called, which gives handlers the record; from any native thread."""
        if record.exc_info and self._exceptions >= MOST_EXCEPTIONS:
            record.exc_text, record.exc_info = exception_text(record.exc_info), None
        size = len(str(record.msg)) + len(record.exc_text or "")
        with self._lock:
            self._exceptions += record.exc_info is not None
            self._size += size
            self._entries.append(_Entry(record, hand_out, size, record.exc_info is not None))
        while len(self._entries) > MOST_RECORDS or self._size > MOST_CHARACTERS:
            self._drop()
        if not self._is_awake:
            self._is_awake = True
            self._wake()

    def flush(self, seconds: float) -> None:
        """Wait, at most so many seconds, until the handlers have had all; not in the hub."""
        end = time.monotonic() + seconds
        with contextlib.suppress(Exception):  # a hub that cannot run
            while self._is_awake and time.monotonic() < end:
                gevent.sleep(STEP_SECONDS)
        if self._entries:
            tell("%d records were not taken by the log's handlers in time", len(self._entries))

    def _drop(self) -> None:
        self._take()
        self._dropped += 1
        if self._dropped == 1:
            tell("a handler of the log takes too long: records for it are dropped")

    def _take(self) -> _Entry | None:
        with self._lock:
            if not self._entries:
                return None
            entry = self._entries.popleft()
            self._size -= entry.size
            self._exceptions -= entry.had_exception
        return entry

    def _wake(self) -> None:
        loop = self.hub.loop
        if native.thread_id() == self._thread:
            loop.run_callback(self._run)
        else:
            loop.run_callback_threadsafe(self._run)

    def _run(self) -> None:
        """In the hub: let the greenlet work."""
        if self._greenlet is None or self._greenlet.dead:
            self._greenlet = greenlet(self._work, self.hub)
            self._greenlet.switch()

    def _work(self) -> None:
        while (entry := self._take()) is not None:
            try:
                entry.hand_out()
            except BaseException as error:  # e.g. somebody kills all greenlets there are
                complain("a handler of the log", error)
            if self._dropped and not self._entries:
                dropped, self._dropped = self._dropped, 0
                tell("%d records for handlers of the log were dropped", dropped)
        self._is_awake = False
        if self._entries:  # another thread has put one in just now
            self._is_awake = True
            self._wake()


_of_thread = native.local()
_of_process: LogQueue | None = None


def attach(hub: Any) -> None:
    """What is logged in that hub, of the present thread, goes by a queue from now on."""
    _of_thread.queue = LogQueue(hub)
    defer_by(_later)


def take_all(hub: Any) -> None:
    """All that this process logs goes by one queue from now on: it is a worker."""
    global _of_process
    _of_process = LogQueue(hub)
    defer_by(_later)
    atexit.unregister(flush_queue)  # `finish_log` is what ends a worker


def flush_queue(seconds: float) -> None:
    """Wait, at most so many seconds, until the handlers have had what was logged before."""
    queue = _of_process or getattr(_of_thread, "queue", None)
    if queue is not None and queue.pid == os.getpid() and queue.is_busy:
        queue.flush(seconds)


def finish_log(seconds: float) -> None:
    """This process ends: give handlers what they have not had, and close them.

    Args:
        seconds: what that may take.
    """
    end = time.monotonic() + seconds
    try:
        flush_queue(seconds)
        with gevent.Timeout(max(STEP_SECONDS, end - time.monotonic())):
            logging.shutdown()
    except BaseException as error:  # what a handler of the user's has raised
        complain("a handler of the log, at its end,", error)
    if (own := own_handler()) is not None:
        own.output.flush(max(STEP_SECONDS, end - time.monotonic()))


def _later(record: logging.LogRecord, hand_out: Callable[[], None]) -> bool:
    queue = _queue()
    if queue is None:
        return False
    current = getcurrent()
    is_ours = current is queue.hub or getattr(current, "is_gtasks", False)
    if queue is not _of_process and not is_ours and not queue.is_busy:
        return False
    queue.put(record, hand_out)
    return True


def _queue() -> LogQueue | None:
    global _of_process
    if _of_process is not None and _of_process.pid != os.getpid():
        _of_process = None  # this is a child that a task has forked
    queue: LogQueue | None = _of_process or getattr(_of_thread, "queue", None)
    if queue is not None and queue.pid != os.getpid():
        queue.forget()
    return queue


atexit.register(flush_queue, EXIT_SECONDS)
