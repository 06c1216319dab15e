"""`OwnHandler`: the handler that gtask itself sets up; it neither waits nor raises."""

from __future__ import annotations

import contextlib
import logging

from .formats import JsonFormatter, TextFormatter
from .output import Output, Stderr
from .records import make_record


class OwnHandler(logging.Handler):
    """Formats records and gives them to its output.

    It takes no lock: it may be used in the hub, in any greenlet and in any native thread, between
    which gevent's locks do not work. A user's `dictConfig` closes every handler there is; this one
    goes on.
    """

    def __init__(self, output: Output, formatter: logging.Formatter) -> None:
        super().__init__()
        self.output = output
        self.setFormatter(formatter)
        self._own_formatter = formatter
        self._has_complained = False
        output.tell_lost = self._tell_lost

    @classmethod
    def on_stderr(cls) -> OwnHandler:
        """One of standard error, where none has been set up."""
        return cls(Stderr(), TextFormatter())

    def handle(self, record: logging.LogRecord) -> bool:
        passed = self.filter(record)
        if passed:
            self.emit(record)
        return bool(passed)

    @property
    def is_plain(self) -> bool:
        """No filter and no formatter of the user's has been put into it."""
        return not self.filters and self.formatter is self._own_formatter

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.output.write(self._line(record))
        except Exception as error:  # of a formatter of the user's, else e.g. memory is short
            self._emit_plainly(record, error)

    def _emit_plainly(self, record: logging.LogRecord, error: Exception) -> None:
        records = [record]
        if not self._has_complained:
            self._has_complained = True
            message = "the formatter has failed for a record; told once"
            records.append(make_record("gtask.logs", logging.ERROR, message, (), error))
        with contextlib.suppress(Exception):
            for each in records:
                self.output.write(_encoded(self._own_formatter.format(each)))

    def acquire(self) -> None:
        """Nothing: there is no lock."""

    def release(self) -> None:
        """Nothing: there is no lock."""

    def flush(self) -> None:
        self.output.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        return _encoded(self.format(record))

    def _tell_lost(self, count: int) -> bytes:
        message = "%d lines of the log were lost here: they could not be written"
        return self._line(make_record("gtask.logs", logging.WARNING, message, (count,)))


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"


def make_handler(output: Output, log_format: str) -> OwnHandler:
    """A handler that writes as ``log_format`` says."""
    return OwnHandler(output, JsonFormatter() if log_format == "json" else TextFormatter())


_own: OwnHandler | None = None


def own_handler() -> OwnHandler | None:
    """The one that was set up, also when a user's configuration has removed it; or None."""
    return _own


def set_own_handler(handler: OwnHandler | None) -> None:
    """Make it the one."""
    global _own
    _own = handler
