"""What user code leaves behind in the greenlet that ran it, and how it is kept from who comes next.

gevent keeps thread-locals under keys in the `__dict__` of the greenlet. A greenlet with nothing
there has nothing to hide, which is one look; the rest of this is for the others.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback

from greenlet import getcurrent, greenlet

CURRENT_THREAD = "gtask.current_thread"  # it has asked for `threading.current_thread`
FORKED = "gtask.forked"  # it has forked, and goes on in the child
FAILED = 1


def forget_current_thread(current: greenlet) -> None:
    """Who asks next in that greenlet gets another `threading.current_thread`."""
    if current.__dict__.pop(CURRENT_THREAD, None) is not None:
        threading._active.pop(id(current), None)  # type: ignore[attr-defined]


def end_if_forked(error: BaseException | None) -> None:
    """End the process, if it is a child that this greenlet has forked, and whose code is through.

    Args:
        error: what that has raised, if it has.
    """
    if FORKED in getcurrent().__dict__:
        end_process(error)


def end_process(error: BaseException | None) -> None:
    """End the child, without `atexit`, whose functions are the worker's."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    elif error is not None:
        traceback.print_exception(error)
        code = FAILED
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # it is closed, or none
            stream.flush()
    os._exit(code & 0xFF)
