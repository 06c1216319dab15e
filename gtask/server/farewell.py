"""The last that a worker process does: `on_worker_stop`, then what was registered to run at its end.

Threads' and `atexit` functions are called as Python does when a program ends, although a worker ends
by `os._exit`. All of it is user code, and has its time: where it fails or hangs there is a line in
the log, and the process ends all the same.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any

from greenlet import getcurrent

from .. import native
from ..logs.loggers import get_logger

log = get_logger(__name__)

LEAST_SECONDS = 0.4  # what there is when the drain has used its time up: the master kills after 0.5
LOG_SECONDS = 0.1  # what the log of a process that hangs gets


def limit_farewell(seconds: float, code: int) -> None:
    """Have this process end with `code` in so many seconds, wherever it stands then.

    To be called once, by the greenlet whose stack is then logged. It takes a native thread, as what
    hangs may hold up the loop.
    """
    greenlet, thread = getcurrent(), native.thread_id()

    def end() -> None:
        native.sleep(max(LEAST_SECONDS, seconds) - LOG_SECONDS)
        frame = greenlet.gr_frame or sys._current_frames().get(thread)
        native.start_thread(_log_hang, (seconds, frame))
        native.sleep(LOG_SECONDS)  # not for longer: the log itself may be what hangs
        os._exit(code)

    try:
        native.start_thread(end, ())
    except RuntimeError:  # no thread can be had: the master's patience is the limit
        log.warning("the end of this process has no time limit of its own: no thread can be made")


def _log_hang(seconds: float, frame: FrameType | None) -> None:
    stack = "".join(traceback.format_stack(frame)) if frame is not None else ""
    text = "the end of the process takes too long, so it is cut off here"
    log.log(logging.ERROR, text, stacks=stack.rstrip())


def run_exit_functions(patience: float) -> None:
    """Do what Python does when a program ends, in its order.

    That is, let executors finish, wait for threads that are no daemons, call what is registered with
    `atexit`, the last first.

    Args:
        patience: seconds that threads are waited for.
    """
    hooks = getattr(threading, "_threading_atexits", ())  # those of concurrent.futures
    for function in reversed(hooks):
        _call(function)
    _join_threads(patience)
    sys.unraisablehook = _log_unraisable  # which `atexit` calls with what a function raises
    atexit._run_exitfuncs()


def _join_threads(patience: float) -> None:
    deadline = monotonic() + patience
    for thread in threading.enumerate():
        if thread.daemon or thread in (threading.main_thread(), threading.current_thread()):
            continue
        thread.join(max(0.0, deadline - monotonic()))
        if thread.is_alive():
            log.warning("thread %s is cut off: it is no daemon, and has not ended", thread.name)


def _call(function: Callable[[], Any]) -> None:
    try:
        function()
    except BaseException:  # the edge to user code
        log.exception("%r has failed at the end of the process", function)


def _log_unraisable(failure: Any) -> None:
    what = (failure.exc_type, failure.exc_value, failure.exc_traceback)
    log.error("%r has failed at the end of the process", failure.object, exc_info=what)


def keep_finalizers() -> None:
    """Have nobody's end finalize what has been made so far, e.g. remove a temporary directory.

    To be called before the forks: what was made then is all workers'.
    """
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
