"""How a process ended, in words."""

from __future__ import annotations

import os
import signal


def describe_exit(status: int) -> str:
    """A wait status (wait(2)) in words.

    >>> describe_exit(9)
    'killed by SIGKILL, perhaps out of memory'
    >>> describe_exit(3 << 8)
    'exit 3'
    """
    if not os.WIFSIGNALED(status):
        return f"exit {os.waitstatus_to_exitcode(status)}"
    number = os.WTERMSIG(status)
    try:
        name = signal.Signals(number).name
    except ValueError:  # a real-time signal
        name = f"signal {number}"
    return f"killed by {name}{_HINTS.get(number, '')}"


_HINTS: dict[int, str] = {
    signal.SIGKILL: ", perhaps out of memory",
    signal.SIGSEGV: ", a fault in C code",
    signal.SIGBUS: ", a fault in C code or a full disk",
    signal.SIGABRT: ", an abort in C code",
}
