"""The standard streams, where a program was started without some: ``program <&- >&- 2>&-``."""

from __future__ import annotations

import contextlib
import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # in the order of their descriptors


def open_standard_streams() -> None:
    """Have those that are closed read from and write to nowhere; to be called before all else.

    The next file or socket would get the free number else, and what is then printed.
    """
    for fd, (name, mode) in enumerate(STREAMS):
        if _is_open(fd) and getattr(sys, name) is not None:
            continue
        with contextlib.suppress(OSError):  # there is no /dev/null
            if not _is_open(fd):
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free: `fd`
            if getattr(sys, name) is None:
                null = os.open(os.devnull, os.O_RDWR)
                setattr(sys, name, os.fdopen(null, mode, encoding="utf-8", errors="replace"))


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
