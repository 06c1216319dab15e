"""How our own handler writes a record: as text for people, or as one JSON object a line."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable

from ..printable import printable, printable_text, shortened
from .records import ExcInfo, message_of

TEXT = "{time} {level:7} {process} {name}: {message}"
EXCEPTION_CHARACTERS = 10_000  # of an exception's message, which a peer may have had a say in


class TextFormatter(logging.Formatter):
    """A record begins with its time; further lines of its message are indented.

    So no message can pass for another record. Tracebacks follow as Python writes them.
    """

    default_msec_format = "%s.%03d"

    def format(self, record: logging.LogRecord) -> str:
        line = TEXT.format(
            time=self.formatTime(record),
            level=record.levelname,
            process=record.process,
            name=record.name,
            message=printable_text(message_of(record)).replace("\n", "\n    "),
        )
        return "\n".join([line, *_below(record)])


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the exception's traceback inside."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": message_of(record),
        }
        if record.exc_info:
            line["exception"] = exception_text(record.exc_info, shortened)
        elif record.exc_text:
            line["exception"] = record.exc_text
        if record.stack_info:
            line["stacks"] = record.stack_info
        return json.dumps(line)


def exception_text(
    exc_info: ExcInfo | tuple[None, None, None],
    show: Callable[[object, int], str] = printable,
) -> str:
    """An exception as Python writes it, but that no message in it has a line of its own.

    Args:
        show: what makes a message fit to be shown.
    """
    if exc_info[0] is None:
        return ""
    try:
        told = traceback.TracebackException(*exc_info, compact=True)
        for each in _chain(told):
            each.__dict__["_str"] = show(each.__dict__.get("_str"), EXCEPTION_CHARACTERS)
            notes = getattr(each, "__notes__", None)
            if isinstance(notes, list):
                each.__notes__ = [show(note, EXCEPTION_CHARACTERS) for note in notes]
        return "".join(told.format()).rstrip("\n")
    except BaseException as error:  # what belongs to an exception of the user's may be anything
        return f"{exc_info[0].__name__} (which cannot be shown: {type(error).__name__})"


def _below(record: logging.LogRecord) -> list[str]:
    exception = exception_text(record.exc_info) if record.exc_info else record.exc_text
    return [printable_text(text) for text in (exception, record.stack_info) if text]


def _chain(first: traceback.TracebackException) -> list[traceback.TracebackException]:
    """An exception and all that it came from or that it groups."""
    found, left = [], [first]
    while left:
        each = left.pop()
        found.append(each)
        groups = getattr(each, "exceptions", None) or ()
        left += [other for other in (each.__cause__, each.__context__, *groups) if other]
    return found
