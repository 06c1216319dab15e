"""Forking in a mold: without what CPython does around a fork, where nobody could tell.

After a fork the standard library makes its locks anew (threading, logging, random ...), in case
another thread held one, and then each worker has copies of all the pages that this looks at: 0.6 MB
of its own. A mold that has one thread holds no lock. So it calls fork(2) by itself, unless a module
of the user's has asked by `os.register_at_fork` to be told of forks, or has started a thread. Of the
modules that a script had before `run_all` this cannot be known, so its molds use `os.fork`.
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
    """Forks by the shortest way that is safe.

    That is `os.fork`, unless the user's modules are loaded in its `with` and do nothing against it.
    """

    def __init__(self) -> None:
        self._is_watched = False  # somebody wants to be told of forks
        self._is_alone = False
        self._register = os.register_at_fork

    def __enter__(self) -> Forker:
        """Look who registers, while the user's modules are loaded."""
        os.register_at_fork = self._note
        return self

    def __exit__(self, *_: object) -> None:
        os.register_at_fork = self._register
        self._is_alone = len(os.listdir("/proc/self/task")) == 1

    def _note(self, **hooks: Any) -> None:
        self._is_watched = True
        self._register(**hooks)

    @property
    def is_short(self) -> bool:
        """`fork` does without what CPython does."""
        return self._is_alone and not self._is_watched

    def fork(self) -> int:
        """As `os.fork`; in the child, call `settle` before anything else.

        Raises:
            OSError: no process can be made.
        """
        if not self.is_short:
            return native.fork()
        pid: int = _libc.fork()
        if pid < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error))
        return pid

    def settle(self) -> None:
        """Do for a worker the one thing that it needs of what was left out."""
        if self.is_short:
            random.seed()
