"""How long a start may take: one that hangs says where, and its process ends.

The master would end it, too, but a stack that is written from outside shows a loop that waits, and
not who waits for it: what hangs is often patched code (a connection, a lock, a sleep), which has
given the CPU to the loop. Code that hangs in C is left to the master, as no Python runs meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .. import native

log = logging.getLogger(__name__)

FAILED = 1
# Where code is that nobody hangs in by a mistake of its own.
_NOT_THEIRS = (
    "<",
    os.path.dirname(os.path.dirname(__file__)),
    sysconfig.get_path("stdlib"),
    sysconfig.get_path("purelib"),
)


@contextlib.contextmanager
def boot_limit(seconds: float, tell: Callable[[str], None]) -> Iterator[None]:
    """End this process if the block, in the greenlet that this is called in, takes too long.

    Args:
        seconds: how long it may take; 0: for ever.
        tell: is told why and where, before the end; the log has the whole stack.
    """
    if not seconds:
        yield
        return
    import greenlet  # by now everybody has it

    own = greenlet.getcurrent()

    def end(_number: int, frame: FrameType | None) -> None:
        hanging = frame if greenlet.getcurrent() is own else own.gr_frame
        _end(f"not ready within boot_timeout ({seconds:g} s)", hanging, tell)

    native.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is end:  # else the user's code has taken it for itself
            signal.setitimer(signal.ITIMER_REAL, 0)
            native.signal(signal.SIGALRM, signal.SIG_DFL)


def _end(why: str, hanging: Any, tell: Callable[[str], None]) -> None:
    stack = traceback.extract_stack(hanging)
    try:
        log.error("%s, it hangs in\n%s", why, "".join(stack.format()).rstrip())
    except BaseException:  # the edge to handlers of the user's; the log is not why it ends
        pass
    try:
        tell(f"{why}: it hangs in {where(stack)}")
    finally:
        os._exit(FAILED)


def where(stack: traceback.StackSummary) -> str:
    """The innermost line that is the user's own, or else the innermost of all."""
    theirs = [each for each in stack if not each.filename.startswith(_NOT_THEIRS)]
    frame = [*stack, *theirs][-1]
    return f"{frame.filename}, line {frame.lineno}, {frame.name}"
