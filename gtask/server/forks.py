"""Forking in a mold by fork(2) alone, where nobody could tell it from `os.fork`.

Around a fork CPython runs hooks: threading, logging and random make their locks and state anew, in
case another thread held one. Each worker then has copies of all the pages that this looks at. A mold
that has one thread holds no lock and needs none of it, so it calls fork(2) by itself, unless

- a module of the user's has asked by `os.register_at_fork` to be told of forks,
- or has started a thread,
- or it is the mold of a script: what its modules had asked for before `run_all` cannot be known.

What it gains, by `bench/memory` (100 workers after work, in all): 227 MB instead of 284 with CPython
3.11, 184 instead of 240 with 3.13, which is 0.57 MB of each worker.
"""

from __future__ import annotations

import ctypes
import os
import random
from typing import Any

from .. import native

# A PyDLL keeps the interpreter's lock while it calls.
_libc = ctypes.PyDLL(None, use_errno=True)


class Forker:
    """Forks by `os.fork`, until a `with` in which the user's modules are loaded has shown that the
    short way is safe."""

    def __init__(self) -> None:
        self.is_short = False
        self._is_hooked = False  # somebody wants to be told of forks
        self._register = os.register_at_fork

    def __enter__(self) -> Forker:
        os.register_at_fork = self._note
        return self

    def __exit__(self, *_: object) -> None:
        os.register_at_fork = self._register
        self.is_short = not self._is_hooked and _has_one_thread()

    def _note(self, **hooks: Any) -> None:
        self._is_hooked = True
        self._register(**hooks)

    def fork(self) -> int:
        """As `os.fork`.

        Raises:
            OSError: no process can be made.
        """
        if not self.is_short:
            return native.fork()
        pid: int = _libc.fork()
        if pid < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        if pid == 0:
            random.seed()  # the one hook that a worker needs: it shall not draw its siblings' numbers
        return pid


def _has_one_thread() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) == 1
    except OSError:  # there is no /proc that would tell
        return False
