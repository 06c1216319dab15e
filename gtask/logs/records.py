"""A record of the log, made without a lock, a factory of the user's, or anything that may fail.

`logging.LogRecord` asks `threading` for the name of the thread, which takes a lock that is gevent's
in a worker; the hub must not wait for one.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from types import FrameType, TracebackType
from typing import Any

from .. import native
from ..printable import printable

MESSAGE_CHARACTERS = 4000

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None]

_started = time.time()
_main_thread = native.thread_id()


def make_record(
    name: str,
    level: int,
    message: str,
    args: tuple[object, ...],
    exc_info: object = None,
    stacks: str = "",
    keeps_lines: bool = False,
) -> logging.LogRecord:
    """A record of gtask's own; its message is of one line, whatever a peer has sent.

    Args:
        exc_info: an exception, True for the one that is handled now, or what `sys.exc_info` gives.
        stacks: lines to be shown below the message.
        keeps_lines: the message is text of the user's, of several lines.
    """
    now = time.time()
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__.update(
        name=name,
        levelno=level,
        levelname=logging.getLevelName(level),
        msg=message if keeps_lines else _one_line(message, args),
        args=None,
        exc_info=_exception(exc_info),
        exc_text=None,
        stack_info=stacks or None,
        created=now,
        msecs=float(int(now % 1 * 1000)),
        relativeCreated=(now - _started) * 1000,
        process=os.getpid(),
        processName="MainProcess",
        taskName=None,
        **_thread(),
        **_place(name),
    )
    return record


def message_of(record: logging.LogRecord) -> str:
    """The message of any record, also of one whose arguments do not fit."""
    try:
        return record.getMessage()
    except Exception as error:
        given = printable(repr(record.msg), MESSAGE_CHARACTERS)
        return f"{given} cannot be formatted: {type(error).__name__}: {printable(error)}"


def _one_line(message: str, args: tuple[object, ...]) -> str:
    try:
        text = message % args if args else message
    except BaseException as error:  # a `__repr__` of the user's
        text = f"{message} (which cannot be shown: {type(error).__name__})"
    return printable(text, MESSAGE_CHARACTERS)


def _exception(given: object) -> ExcInfo | None:
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    found: Any = sys.exc_info() if given is True else given
    return found if found and found[0] is not None else None


def _thread() -> dict[str, Any]:
    ident = native.thread_id()
    is_main = ident == _main_thread
    return {"thread": ident, "threadName": "MainThread" if is_main else f"Thread-{ident}"}


def _place(name: str) -> dict[str, Any]:
    """Where the record was made; compiled code has no frames that would tell."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and _module_of(frame).startswith("gtask.logs"):
        frame = frame.f_back
    if frame is not None and _module_of(frame).startswith("gtask."):
        path, line, function = frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
    else:
        path, line, function = name, 0, ""
    file = os.path.basename(path)
    return {
        "pathname": path,
        "filename": file,
        "module": os.path.splitext(file)[0] if line else name,
        "lineno": line,
        "funcName": function,
    }


def _module_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))
