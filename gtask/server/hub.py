"""What becomes of an exception that nobody has caught, in a greenlet, a callback or a signal handler.

gevent prints it on standard error. In molds and workers it is a record of the log instead, made
where nothing waits for it. And it ends no more than the greenlet: gevent would throw `SystemExit`,
`KeyboardInterrupt`, `SystemError` and whatever a signal handler raises in the hub into the main
greenlet, which ends the process with all its calls. All hubs of the process are meant, so the
methods are the class's: a native thread in which a user's code uses gevent has a hub of its own.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

from gevent.exceptions import HubDestroyed
from gevent.hub import Hub
from greenlet import GreenletExit

from ..logs.loggers import get_logger

log = get_logger("gtask.hub")


def watch_hubs() -> None:
    """Have what gevent would print logged, and hubs live on whatever is raised."""
    Hub.print_exception = _log_exception  # type: ignore[method-assign,assignment]
    Hub.handle_error = _handle_error  # type: ignore[method-assign,assignment]


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


def _handle_error(hub: Any, context: object, kind: Any, error: Any, traceback: Any) -> None:
    kind, error, traceback = hub._normalize_exception(kind, error, traceback)
    if kind is HubDestroyed:
        raise error  # its way to end
    if issubclass(kind, GreenletExit):
        return  # it was killed by somebody
    hub.print_exception(context, kind, error, traceback)
    if kind is SystemError and traceback is None:
        # The kernel refuses what libev cannot be without; it would try again for ever.
        hub.handle_system_error(kind, error)
