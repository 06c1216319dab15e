"""What a worker's hub does with an exception that nobody has caught: it logs it, and goes on.

gevent's own hub throws `SystemExit`, `KeyboardInterrupt` and `SystemError`, and whatever a signal
handler raises in the hub, into the main greenlet, which ends the process with all its calls. In a
worker they end the greenlet that they were raised in, as any other exception does.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any

from gevent.exceptions import HubDestroyed
from greenlet import GreenletExit

log = logging.getLogger(__name__)

MAX_CONTEXT = 200  # characters that a log line shows of what has failed


def outlive_errors(hub: Any) -> None:
    """Have `hub`, and with it its process, live on whatever is raised in one of its greenlets.

    What libev tells of itself, which has no traceback, is no such thing: it tries again for ever.
    """

    def handle_error(context: Any, kind: Any, error: Any, traceback: Any) -> None:
        if kind is HubDestroyed:
            raise error  # its way to end
        if kind is SystemError and traceback is None:
            hub.handle_system_error(
                kind, error
            )  # the kernel refuses what the loop cannot be without
        elif not issubclass(kind, GreenletExit):  # else it was killed by somebody
            _log(hub, context, kind, error, traceback)

    hub.handle_error = handle_error


def _log(hub: Any, context: Any, kind: Any, error: Any, traceback: Any) -> None:
    if not isinstance(error, BaseException):  # C code may tell the class and a text
        error = kind() if error is None else kind(error)
    with contextlib.suppress(BaseException):  # a user's repr, a log that fails: not the hub's end
        what = "a signal handler" if context is None else hub.format_context(context)
        what = " ".join(str(what).split())[:MAX_CONTEXT]
        log.error("%s has failed", what, exc_info=(kind, error, traceback))
