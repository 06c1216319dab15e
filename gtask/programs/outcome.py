"""How the programs print and end: any text, their exit codes, and what if nobody reads them."""

from __future__ import annotations

import io
import os
import sys

DONE, FAILED, USAGE, NOT_RUNNING = 0, 1, 2, 3
CANNOT_CONNECT = os.EX_TEMPFAIL
BAD_CONFIGURATION = os.EX_CONFIG


class Failure(Exception):
    """Ends a program with an exit code, after `lines` on standard error."""

    def __init__(self, code: int, *lines: str) -> None:
        super().__init__(code, *lines)
        self.code = code
        self.lines = lines


def print_any_text() -> None:
    """Have standard output show what its encoding has not as escapes, as standard error does."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # so is a lone surrogate JSON again


def stop_printing() -> int:
    """Whoever reads us has seen enough, which is no failure; to be called after a BrokenPipeError.

    What is still buffered would go into the closed pipe at exit, and be reported then.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE
