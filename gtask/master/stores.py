"""The processes that own stores: one for each file, from before the first worker to after the last.

They live on over reloads. One that ends unasked is started anew, after a pause if that repeats; one
whose loop is silent for 10 s is killed. Moments are seconds of the monotonic clock.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable, Iterable
from typing import Any

from .. import native
from ..config import StoreSettings
from ..logs.loggers import get_logger
from ..store_board import END_SIGNAL, StoreBoard
from .exits import describe_exit
from .slots import backoff_seconds

log = get_logger("gtask.master")

QUICK_SECONDS = 1.0  # a process that lives shorter counts as crashing
SILENT_SECONDS = 10.0  # after which its loop is taken for stuck
BOOT_SECONDS = 30.0  # until its first heartbeat
STOP_SECONDS = 10.0  # from being told to end to KILL

StartStore = Callable[[StoreSettings, StoreBoard, int], int]


class StoreProcess:
    """The process of one store, or the place for it.

    Attributes:
        pid: 0 while there is none.
        is_leaving: it is to end for good.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.settings = settings
        self.board = StoreBoard()
        self.pid = 0
        self.is_leaving = False
        self.started = self.not_before = 0.0
        self.deadline = math.inf  # when it is killed
        self.crashes = 0
        self.restarts = 0

    def describe(self) -> dict[str, Any]:
        """What `status` shows of it."""
        age = self.board.oldest_ready
        return {
            "url": self.settings.url,
            "pid": self.pid,
            "state": self.board.state if self.pid else "not running",
            **self.board.figures(),
            "oldest_ready": None if age < 0 else round(age, 1),
            "restarts": self.restarts,
        }


class Stores:
    """All of them.

    Args:
        start: what such a process does, in the forked child, with the master's process id.
        after_fork_in_child: closes there what is the master's alone.
    """

    def __init__(self, start: StartStore | None, after_fork_in_child: Callable[[], None]) -> None:
        self._start = start
        self._after_fork_in_child = after_fork_in_child
        self._stores: dict[str, StoreProcess] = {}
        self._is_stopping = False

    @property
    def is_any_alive(self) -> bool:
        return any(store.pid for store in self._stores.values())

    def describe(self) -> list[dict[str, Any]]:
        """What `status` shows."""
        return [store.describe() for store in self._stores.values()]

    def provide(self, wanted: Iterable[StoreSettings], now: float) -> None:
        """Have a process for each; one whose settings have changed is replaced."""
        for settings in wanted:
            known = self._stores.get(settings.path)
            if known is None:
                self._stores[settings.path] = StoreProcess(settings)
            elif known.settings != settings:
                known.settings = settings
                self._end(known, now)
            else:
                known.is_leaving = False
        self.tick(now)

    def keep(self, wanted: Iterable[StoreSettings], now: float) -> None:
        """End those that nobody wants any more."""
        paths = {settings.path for settings in wanted}
        for path, store in self._stores.items():
            if path not in paths and not store.is_leaving:
                store.is_leaving = True
                self._end(store, now)

    def stop(self, now: float) -> None:
        """End all; to be called when no worker is left."""
        if not self._is_stopping:
            self._is_stopping = True
            for store in self._stores.values():
                self._end(store, now)

    def ended(self, pid: int, status: int, now: float) -> None:
        """A child has ended: one of these, perhaps."""
        for path, store in list(self._stores.items()):
            if store.pid == pid:
                store.pid = 0
                self._has_ended(path, store, f"{pid} has ended: {describe_exit(status)}", now)

    def _has_ended(self, path: str, store: StoreProcess, what: str, now: float) -> None:
        was_asked = store.deadline < math.inf
        store.deadline = math.inf
        if store.is_leaving:
            del self._stores[path]
        elif not was_asked and not self._is_stopping:
            store.restarts += 1
            store.crashes = store.crashes + 1 if now - store.started < QUICK_SECONDS else 0
            store.not_before = now + backoff_seconds(store.crashes)
            log.warning("store %s: its process %s", store.settings.url, what)

    def wake_at(self, now: float) -> float:
        """When `tick` is due; infinite if only the end of a process can change anything."""
        if not self._stores:
            return math.inf
        waits = [store.not_before for store in self._stores.values() if not store.pid]
        deadlines = [store.deadline for store in self._stores.values()]
        return min([*waits, *deadlines, now + 1.0])

    def tick(self, now: float) -> None:
        """Start what is missing, kill what is stuck."""
        for store in self._stores.values():
            if store.pid:
                self._watch(store, now)
            elif now >= store.not_before and not self._is_stopping and not store.is_leaving:
                self._fork(store, now)

    def _watch(self, store: StoreProcess, now: float) -> None:
        beat = store.board.heartbeat
        since = max(beat + SILENT_SECONDS, store.started + (0 if beat else BOOT_SECONDS))
        if now >= store.deadline:
            _send(store.pid, signal.SIGKILL)
        elif now >= since and store.deadline == math.inf:
            log.error("store %s: its process %d is silent: killed", store.settings.url, store.pid)
            _send(store.pid, signal.SIGKILL)

    def _end(self, store: StoreProcess, now: float) -> None:
        if store.pid and store.deadline == math.inf:
            store.deadline = now + STOP_SECONDS
            _send(store.pid, END_SIGNAL)

    def _fork(self, store: StoreProcess, now: float) -> None:
        assert self._start is not None
        master = os.getpid()
        store.board = StoreBoard()
        store.started = now
        # A signal must not find the master's handlers in the child.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            store.pid = native.fork()
            if store.pid == 0:
                self._be_store(store, master, before)
        except OSError as error:
            store.not_before = now + backoff_seconds(20)
            log.error("store %s: cannot fork: %s", store.settings.url, error.strerror)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _be_store(self, store: StoreProcess, master: int, mask: Any) -> None:
        code = 1
        try:
            self._after_fork_in_child()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            assert self._start is not None
            code = self._start(store.settings, store.board, master)
        except BaseException:  # the edge: nothing may return into the master's code
            log.exception("store %s: its process has failed", store.settings.url)
        finally:
            os._exit(code)


def _send(pid: int, number: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
