"""What Python itself would print: exceptions that nobody has caught, and warnings, as records.

A hook that a user's module has set is left alone.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from types import TracebackType
from typing import Any, TextIO

from .delivery import tell
from .handler import own_handler
from .loggers import get_logger

log = get_logger("gtask.uncaught")
warnings_log = get_logger("py.warnings")  # the name that `logging.captureWarnings` uses

_show = warnings.showwarning
_handle_error = logging.Handler.handleError


def install_hooks() -> None:
    """Put ours in the place of those that Python begins with."""
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _uncaught
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _uncaught_in_thread
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _unraisable
    if logging.Handler.handleError is _handle_error:
        logging.Handler.handleError = _cannot_handle  # type: ignore[assignment,method-assign]
    if getattr(warnings.showwarning, "__module__", "") == "warnings":
        warnings.showwarning = _warned


def _uncaught(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
    else:
        log.error("the program ends", exc_info=(kind, error, traceback))


def _uncaught_in_thread(args: Any) -> None:
    if args.exc_type is not SystemExit:
        name = args.thread.name if args.thread is not None else "a thread"
        given = (args.exc_type, args.exc_value, args.exc_traceback)
        log.error("%s has failed", name, exc_info=given)


def _unraisable(args: Any) -> None:
    what = args.err_msg or "exception ignored in"
    given = (args.exc_type, args.exc_value, args.exc_traceback)
    log.error("%s: %r", what, args.object, exc_info=given)


def _cannot_handle(handler: logging.Handler, record: logging.LogRecord) -> None:
    """What a handler of the user's calls when it has failed; Python would print a traceback."""
    if own_handler() is None:
        _handle_error(handler, record)
    else:
        what = "%s cannot handle the record %r of %s"
        tell(what, type(handler).__name__, record.msg, record.name, exc_info=True)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if file is not None:
        _show(message, category, filename, lineno, file, line)
    else:
        warnings_log.warning("%s:%d: %s: %s", filename, lineno, category.__name__, message)
