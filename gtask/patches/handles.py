"""`ThreadHandle`: how `threading` of Python 3.13 and later waits for the end of a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent.thread
from greenlet import getcurrent

from .locks import Lock


class ThreadHandle(gevent.thread._ThreadHandle):  # type: ignore[misc]
    """The handle of a thread, native or a greenlet, that any other may wait for.

    Attributes:
        ident: what `threading.get_ident` gives in it; None before it was started.
    """

    ident: int | None = None

    def __init__(self, *_: Any, **__: Any) -> None:
        self._end = Lock()  # held until the thread has ended
        self._end.acquire()

    def start(self, function: Callable[[], Any], start: Callable[..., int]) -> None:
        """Run `function` in the thread that `start` starts.

        Raises:
            RuntimeError: it was started before, or cannot be.
        """
        if self.ident is not None:
            raise RuntimeError("thread already started")
        self.ident = start(self._run, (function,))

    def join(self, timeout: float | None = -1) -> None:
        """Wait for its end, for so many seconds; -1 and None: for ever."""
        if self.ident is None:
            raise RuntimeError("thread not started")
        if self.ident == id(getcurrent()) and not self.is_done():
            raise RuntimeError("Cannot join current thread")
        if self._end.acquire(True, -1 if timeout is None else max(timeout, -1)):
            self._end.release()

    def is_done(self) -> bool:
        """It has ended."""
        return self.ident is not None and not self._end.locked()

    def _set_done(self, enter_hub: bool = True) -> None:
        if self.ident is None:
            raise RuntimeError("thread not started")
        self._open()

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            function()
        finally:
            self._open()

    def _open(self) -> None:
        if self._end.locked():
            self._end.release()

    def __repr__(self) -> str:
        return f"<ThreadHandle {self.ident} {'done' if self.is_done() else 'running'}>"
