"""What `gtask-call --progress` shows of a task that runs."""

from __future__ import annotations

import contextlib
import shutil
import sys
from typing import Any

from ..printable import printable
from .printing import complain

BAR_WIDTH = 30  # characters
CLEAR_LINE = "\r\x1b[K"


class ProgressBar:
    """Progress on standard error: a bar on a terminal, else a line for each report."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._is_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._is_shown = False

    def show(self, done: Any, total: Any, note: Any) -> None:
        """Take one report; its values may be of any type, as they come from a task."""
        count = f"{printable(done)}/{printable(total)}" if total else printable(done)
        note = printable(note) if note else ""
        if not self._is_terminal:
            complain(f"{self._name}: {count} {note}".rstrip())
            return
        width = shutil.get_terminal_size().columns - 1
        line = f"{self._name} {_bar(done, total)}{count} {note}"
        self._write(CLEAR_LINE + line[:width])
        self._is_shown = True

    def clear(self) -> None:
        """Remove the bar from the terminal."""
        if self._is_shown:
            self._write(CLEAR_LINE)
            self._is_shown = False

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()


def _bar(done: Any, total: Any) -> str:
    if not (isinstance(done, int | float) and isinstance(total, int | float) and total):
        return ""
    try:
        filled = round(BAR_WIDTH * min(max(done / total, 0.0), 1.0))
    except ArithmeticError:  # of a server that counts in hundreds of digits
        return ""
    return f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] "
