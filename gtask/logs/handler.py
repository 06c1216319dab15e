"""`OwnHandler`: the handler that gtask itself sets up; it neither waits nor raises."""

from __future__ import annotations

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

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.output.write(self._line(record))
        except Exception:  # e.g. memory is short
            self.output.lost += 1

    def acquire(self) -> None:
        """Nothing: there is no lock."""

    def release(self) -> None:
        """Nothing: there is no lock."""

    def flush(self) -> None:
        self.output.flush()

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode("utf-8", "backslashreplace") + b"\n"

    def _tell_lost(self, count: int) -> bytes:
        message = "%d lines of the log were lost here: they could not be written"
        return self._line(make_record("gtask.logs", logging.WARNING, message, (count,)))


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
