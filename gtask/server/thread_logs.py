"""What `blocking=True` tasks log, in native threads.

A handler is called in one thread only, the worker's own, so none has to be made for several. The two
locks that a thread takes to make a record are the ones from before gevent: they are held for a few
lines that never wait.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from .. import native
from ..logs.delivery import deliver_to, give, handlers_of
from ..logs.records import message_of

_own_thread = native.thread_id()
_call_handlers = logging.Logger.callHandlers


def make_threads_log() -> None:
    """Have handlers called in the thread that calls this; after gevent has patched the library."""
    global _own_thread
    _own_thread = native.thread_id()
    use_native_locks()
    logging.Logger.callHandlers = _call_handlers_here  # type: ignore[assignment,method-assign]


def use_native_locks() -> None:
    """To be called in a worker, too: `threading` makes its lock anew after a fork."""
    logging._lock = native.RLock()  # type: ignore[attr-defined]
    threading._active_limbo_lock = native.RLock()  # type: ignore[attr-defined]


def _call_handlers_here(logger: logging.Logger, record: logging.LogRecord) -> None:
    if native.thread_id() == _own_thread:
        _call_handlers(logger, record)
        return
    record.msg, record.args = message_of(record), None  # what it was made of may change meanwhile
    handlers = handlers_of(logger)
    deliver_to(handlers, record, partial(give, record, handlers))
