"""The log of the whole tree: one set-up for master, molds and workers, which inherit its file.

Lines are appended whole, so processes may share the file. A log that cannot be written (a full
disk) loses lines and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from typing import TextIO

from .config import Settings

TEXT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"


class _TextFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(TEXT)
        self.default_msec_format = "%s.%03d"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, with the exception's traceback inside."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, and so replaced when the log is set up again; a failing disk is not reported to itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        pass


def setup_logging(settings: Settings) -> None:
    """Send the log to `log_file` or stderr; called again, it opens the file anew.

    A script that has set its own logging up keeps that, unless `log_file` is set.

    Raises:
        OSError: `log_file` cannot be opened; the log stays as it was.
    """
    root = logging.getLogger()
    old = [handler for handler in root.handlers if isinstance(handler, _Handler)]
    if root.handlers and not old and not settings.log_file:
        return
    handler = _Handler(_open(settings.log_file) if settings.log_file else sys.stderr)
    handler.setFormatter(_JsonFormatter() if settings.log_format == "json" else _TextFormatter())
    root.addHandler(handler)
    for previous in old:
        root.removeHandler(previous)
        if previous.stream is not sys.stderr:
            with contextlib.suppress(OSError):
                previous.stream.close()
    root.setLevel(settings.log_level.upper())


def log_stream() -> TextIO:
    """Where our log goes: for the stacks that `faulthandler` writes."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            return handler.stream
    return sys.stderr


def _open(path: str) -> TextIO:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
