"""Lines of the log that others can bring about: at most some a minute, so that nobody fills the disk."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from time import monotonic

from .. import native
from ..logs.loggers import get_logger

LINES = 10  # in a row, at most
LINES_SECONDS = 60.0
MISTAKE_SECONDS = 0.1  # a mistake that is made again and again does not take the whole CPU

log = get_logger("gtask.master")


class Complaints:
    """Logs what is wrong and is no fault of the master's; what is too much is counted only."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._lines = 0

    def add(self, text: str, now: float, error: BaseException | None = None) -> None:
        """Log a line, and the traceback of `error`; `now` is of the monotonic clock, in seconds."""
        if now - self._began >= LINES_SECONDS:
            unsaid = max(0, self._lines - LINES)
            self._began, self._lines = now, 0
            if unsaid:
                log.warning("%d more lines like the last were not logged", unsaid)
        self._lines += 1
        if self._lines <= LINES:
            log.log(logging.ERROR if error else logging.WARNING, "%s", text, exc_info=error)

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """The last line: a mistake of ours in what is done inside is the end of that alone."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(Exception):
                self.add("a mistake in the master", monotonic(), error)
            native.sleep(MISTAKE_SECONDS)
