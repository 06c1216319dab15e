"""Threads: a thread that is started in a native thread is one; one started in the main thread is a greenlet.

Each native thread runs its function in a greenlet of its own, so that `threading.local`, which
gevent makes a greenlet's, is that thread's, and `threading.get_ident` tells it apart.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from typing import Any

import gevent.hub
import gevent.thread
import gevent.threading
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent, greenlet

from .. import native
from .handles import ThreadHandle
from .leftovers import CURRENT_THREAD
from .worlds import original, put

_start_native: Any = original("_thread", "start_new_thread")
_start_green: Any = gevent.thread.start_new_thread


class ThreadGreenlet(greenlet):
    """What a native thread runs, with the part of a gevent greenlet that gevent's `threading` needs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self._function = function
        self._links: list[Callable[[ThreadGreenlet], Any]] = []

    def rawlink(self, callback: Callable[[ThreadGreenlet], Any]) -> None:
        """Have `callback(self)` called when the function has ended."""
        self._links.append(callback)

    def run(self, *args: Any, **kwargs: Any) -> None:
        try:
            self._function(*args, **kwargs)
        finally:
            for link in self._links:
                link(self)

    def begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """In the new thread: all that happens there."""
        self.parent = getcurrent()
        try:
            self.switch(*args, **kwargs)
        finally:
            if (hub := get_hub_if_exists()) is not None:
                hub.destroy(destroy_loop=True)  # or its descriptors would stay open for ever


def is_main_thread() -> bool:
    """This is the native thread that the worker's hub runs in."""
    main: int = vars(gevent.hub)["MAIN_THREAD_IDENT"]
    return native.thread_id() == main


def start_new_thread(
    function: Callable[..., Any],
    args: tuple[Any, ...] = (),
    kwargs: dict[str, Any] | None = None,
) -> int:
    """`_thread.start_new_thread`; what it gives is as `threading.get_ident` there."""
    if is_main_thread():
        return int(_start_green(function, args, kwargs or {}))
    thread = ThreadGreenlet(function)
    _start_native(thread.begin, (args, kwargs or {}))
    return id(thread)


def start_joinable_thread(
    function: Callable[[], Any], handle: ThreadHandle | None = None, daemon: bool = True
) -> ThreadHandle:
    """`_thread.start_joinable_thread` of Python 3.13 and later."""
    if handle is None:
        handle = ThreadHandle()
    handle.start(function, start_new_thread)
    return handle


class CurrentThread(gevent.threading._DummyThread):  # type: ignore[misc]
    """What `threading.current_thread` gives in a greenlet, noted there, so that it can be forgotten
    when the greenlet takes up another call."""

    def __init__(self) -> None:
        super().__init__()
        getcurrent().__dict__[CURRENT_THREAD] = self


def install() -> None:
    """Give `threading` and `_thread` these."""
    put(threading, _DummyThread=CurrentThread)
    put(_thread, start_new_thread=start_new_thread, start_new=start_new_thread)
    if sys.version_info < (3, 13):
        put(threading, _start_new_thread=start_new_thread)
    else:
        put(_thread, start_joinable_thread=start_joinable_thread, _ThreadHandle=ThreadHandle)
        put(threading, _start_joinable_thread=start_joinable_thread, _ThreadHandle=ThreadHandle)
