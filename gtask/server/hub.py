"""What gevent reports of its own accord: what a greenlet, a callback or a thread's hub has raised.

gevent prints it on standard error. In molds and workers it is a record of the log instead, made
where nothing waits for it. All hubs of the process are meant, so the method is the class's: a
native thread in which a user's code uses gevent has a hub of its own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from gevent.hub import Hub

from ..logs.loggers import get_logger

log = get_logger("gtask.hub")


def watch_hubs() -> None:
    """Have what gevent would print logged."""
    Hub.print_exception = _log_exception  # type: ignore[method-assign,assignment]


def report(
    context: object,
    kind: type[BaseException] | None,
    error: BaseException | None,
    traceback: TracebackType | None,
) -> None:
    """Log an exception that ended `context`: a greenlet, a callback, or what gevent calls it."""
    name = kind.__name__ if kind is not None else "an error"
    given = (kind, error, traceback) if kind is not None else None
    log.error("%s failed with %s", context or "a callback", name, exc_info=given)


def _log_exception(hub: Any, context: object, kind: Any, error: Any, traceback: Any) -> None:
    report(context, *hub._normalize_exception(kind, error, traceback))
