"""How long a start may take: one that hangs says where, and its process ends.

The master would end it, too, but a stack that is written from outside shows a loop that waits, and
not who waits for it: what hangs is often patched code (a connection, a lock, a sleep), which has
given the CPU to the loop. Code that hangs in C is left to the master, as no Python runs meanwhile.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sysconfig
import traceback
from collections.abc import Callable
from logging import ERROR
from types import FrameType
from typing import Any

from ..logs.handler import own_handler
from ..logs.loggers import get_logger

log = get_logger(__name__)

FAILED = 1
LOG_SECONDS = 0.5  # what the end may wait for the reader of standard error
# Where code is that nobody hangs in by a mistake of its own.
_NOT_THEIRS = (
    "<",
    os.path.dirname(os.path.dirname(__file__)),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
)


class BootLimit:
    """Ends this process if the greenlet that calls `start` does not call `stop` in time.

    Each worker goes through here after its fork. So there is no context manager, and the functions
    of `_signal` are called, which are C: 120 kB less of a worker's own memory.

    Args:
        seconds: how long it may take; 0: for ever.
        tell: is told why and where, before the end; the log has the whole stack.
    """

    def __init__(self, seconds: float, tell: Callable[[str], None]) -> None:
        from greenlet import getcurrent  # not above: the master of a script has no use for it

        self._current_greenlet = getcurrent
        self._seconds = seconds
        self._tell = tell
        self._greenlet: Any = None
        self._end_now = self._end  # one object, to be recognised

    def start(self) -> None:
        """The time begins."""
        if self._seconds:
            self._greenlet = self._current_greenlet()
            _signal.signal(_signal.SIGALRM, self._end_now)
            _signal.setitimer(_signal.ITIMER_REAL, self._seconds)

    def stop(self) -> None:
        """What was limited is through."""
        if self._seconds and _signal.getsignal(_signal.SIGALRM) is self._end_now:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            _signal.signal(_signal.SIGALRM, _signal.SIG_DFL)
        # Else the user's code has taken the signal for itself.

    def _end(self, _number: int, frame: FrameType | None) -> None:
        hanging = frame if self._current_greenlet() is self._greenlet else self._greenlet.gr_frame
        stack = traceback.extract_stack(hanging)
        why = f"not ready within boot_timeout ({self._seconds:g} s)"
        try:
            log.log(ERROR, "%s; its stack", why, stacks="".join(stack.format()))
            self._tell(f"{why}: it hangs in {where(stack)}")
            if (own := own_handler()) is not None:
                own.output.flush(LOG_SECONDS)
        finally:
            os._exit(FAILED)


def where(stack: traceback.StackSummary) -> str:
    """The innermost line that is the user's own, or else the innermost of all."""
    theirs = [each for each in stack if not each.filename.startswith(_NOT_THEIRS)]
    frame = [*stack, *theirs][-1]
    return f"{frame.filename}, line {frame.lineno}, {frame.name}"
