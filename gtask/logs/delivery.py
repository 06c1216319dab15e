"""Who gets a record of gtask's: our own handler at once, the user's where they may wait.

Our own handler neither waits nor raises, so it gets the record where it was made. Handlers and
filters of the user's may do both. Where an event loop runs, `later` has them called in a greenlet;
else they are called here, and what they raise is told once and goes no further.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from .handler import OwnHandler, own_handler
from .records import make_record

Handlers = list[logging.Handler]
Later = Callable[[logging.LogRecord, Callable[[], None]], bool]

_MOST_COMPLAINTS = 20
_complaints: set[str] = set()
_last_resort = OwnHandler.on_stderr()


def _never(record: logging.LogRecord, hand_out: Callable[[], None]) -> bool:
    return False


_later: Later = _never


def defer_by(later: Later) -> None:
    """Have `later` asked for each record that is to go to handlers of the user's.

    Args:
        later: sees to it that its second argument is called; False if that is to be done at once.
    """
    global _later
    _later = later


def deliver(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Give a record of gtask's to whoever is to have it."""
    handlers = handlers_of(logger)
    hand_out = partial(_hand_out, logger, record, handlers)
    if logger.filters:
        if not _later(record, hand_out):
            hand_out()
    else:
        deliver_to(handlers, record, hand_out)


def deliver_to(handlers: Handlers, record: logging.LogRecord, hand_out: Callable[[], None]) -> None:
    """Give a record to our own handler, and have `hand_out` give it to the others.

    Args:
        handlers: whoever is to have it; ours is taken out, unless there is a filter or formatter of the user's in it.
    """
    for own in [each for each in handlers if isinstance(each, OwnHandler) and each.is_plain]:
        handlers.remove(own)
        if record.levelno >= own.level:
            own.emit(record)
    if handlers and not _later(record, hand_out):
        hand_out()


def give(record: logging.LogRecord, handlers: Handlers) -> None:
    """Give a record to handlers that may wait and raise."""
    for handler in handlers:
        if record.levelno < handler.level:
            continue
        try:
            handler.handle(record)
        except (Exception, SystemExit) as error:
            complain(type(handler).__name__, error)
            if isinstance(handler, OwnHandler):  # it was a filter that has raised
                handler.emit(record)


def handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """The handlers that a logger's records reach; ours if there are none, else the last resort."""
    found: list[logging.Handler] = []
    each: logging.Logger | None = logger
    while each is not None:
        found += each.handlers
        each = each.parent if each.propagate else None
    fallback = own_handler() or logging.lastResort
    return found or ([fallback] if fallback is not None else [])


def complain(where: str, error: BaseException) -> None:
    """Tell, once for each kind, that something of the user's has failed for a record."""
    kind = f"{where}: {type(error).__name__}"
    if kind not in _complaints and len(_complaints) < _MOST_COMPLAINTS:
        _complaints.add(kind)
        tell("%s has failed for a record; told once", where, exc_info=error)


def tell(message: str, *args: object, exc_info: object = None) -> None:
    """Log something about the log itself, by our own handler alone."""
    record = make_record("gtask.logs", logging.ERROR, message, args, exc_info)
    (own_handler() or _last_resort).emit(record)


def _hand_out(logger: logging.Logger, record: logging.LogRecord, handlers: Handlers) -> None:
    record = _through_factory(record)
    if _passes(logger, record):
        give(record, handlers)


def _through_factory(record: logging.LogRecord) -> logging.LogRecord:
    """The record with what a record factory of the user's adds."""
    factory = logging.getLogRecordFactory()
    if factory is logging.LogRecord:
        return record
    try:
        made: logging.LogRecord = factory(
            record.name, record.levelno, record.pathname, record.lineno, record.msg, (), None
        )
        made.__dict__.update(record.__dict__)
        return made
    except Exception as error:
        complain("the record factory", error)
        return record


def _passes(logger: logging.Logger, record: logging.LogRecord) -> bool:
    try:
        return bool(logger.filter(record))
    except Exception as error:
        complain(f"a filter of {logger.name}", error)
        return True
