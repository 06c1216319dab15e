"""Loading the user's code once, for `check`: in a mold that never forks a worker."""

from __future__ import annotations

import math
import os
import select
from collections.abc import Mapping
from time import monotonic
from typing import Any

from .. import native
from ..config import Settings
from .exits import describe_exit
from .messages import Loaded, NotLoaded, read_mold_message
from .molds import Mold, StartMold
from .slots import DUMP_SECONDS, LATE_SECONDS, too_late


def try_load(
    settings: Settings, start_mold: StartMold
) -> tuple[Mapping[str, list[str]], list[str]]:
    """Load the user's code in a process made for it; returns function names, and problems."""
    mold = Mold(0, settings, {})
    mold.start(start_mold, lambda: None)
    answer: Loaded | NotLoaded | None
    try:
        answer = _answer(mold, settings.boot_timeout)
    except TimeoutError:
        answer = NotLoaded([too_late(settings.boot_timeout)], 1)
        mold.abort()  # it writes its stacks
        _await_end(mold, DUMP_SECONDS)
    mold.dismiss()
    _, status = native.waitpid(mold.pid, 0)
    mold.close()
    match answer:
        case Loaded(functions):
            return functions, []
        case NotLoaded(problems, _):
            return {}, problems
    return {}, [f"the process that loads the code has ended: {describe_exit(status)}"]


def _answer(mold: Mold, boot_timeout: float) -> Loaded | NotLoaded | None:
    """What it says; None if it ends without a word.

    Raises:
        TimeoutError: it says nothing for so long that it should have ended by itself.
    """
    deadline = monotonic() + boot_timeout + LATE_SECONDS if boot_timeout else math.inf
    while _is_readable(mold.channel, deadline - monotonic()):
        data = next(mold.messages(), b"")
        if not data:
            return None
        message = read_mold_message(data)
        if isinstance(message, Loaded | NotLoaded):
            return message
    raise TimeoutError


def _await_end(mold: Mold, seconds: float) -> None:
    ended = os.pidfd_open(mold.pid)
    _is_readable(ended, seconds)
    os.close(ended)


def _is_readable(file: Any, seconds: float) -> bool:
    """Wait until there is something to read, for so many seconds at most."""
    poll = native.poll()
    poll.register(file, select.POLLIN)
    return bool(poll.poll(None if seconds == math.inf else max(0.0, seconds) * 1000))
