"""The master's own children: which have ended, and which are still there to be sent a signal.

A process id comes from the kernel, but also from what a mold tells. One that is not our child's is
a stranger's by now, or was never ours, and is not to be killed.
"""

from __future__ import annotations

import contextlib
import os

from .. import native


def reap() -> list[tuple[int, int]]:
    """The children that have ended, with their wait statuses."""
    dead: list[tuple[int, int]] = []
    with contextlib.suppress(ChildProcessError):  # there is none at all
        while (ended := native.waitpid(-1, os.WNOHANG))[0]:
            dead.append(ended)
    return dead


def is_child(pid: int) -> bool:
    """It is a child of ours that has not been reaped, so nobody else can have its number."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def send_signal(pid: int, number: int) -> bool:
    """Send a child of ours a signal; False if there is none with this number."""
    if not is_child(pid):
        return False
    with contextlib.suppress(PermissionError):  # it has become another user's: a setuid program
        os.kill(pid, number)
    return True
