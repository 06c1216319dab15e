"""`Timer`: functions called later or again and again, each in a greenlet."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from .reactor import current_reactor


class Timer:
    """Timers of this process, by id, as Workerman's `Timer`."""

    _watchers: dict[int, Any] = {}
    _running: set[int] = set()
    _ids = itertools.count(1)

    @classmethod
    def add(
        cls, interval: float, function: Callable[..., Any], *args: Any, persistent: bool = True
    ) -> int:
        """Call `function(*args)` every `interval` seconds, or once if not `persistent`.

        An exception in it is logged. While one call still runs, the next ones are skipped. It runs
        in a copy of the context (`contextvars`) of who has added it.

        Returns:
            the timer's id for `delete`.

        Raises:
            ValueError: the interval is not above 0.
        """
        if not interval > 0:
            raise ValueError(f"interval must be above 0 seconds, not {interval!r}")
        reactor = current_reactor()
        id = next(cls._ids)
        watcher = reactor.loop.timer(interval, interval if persistent else 0.0)
        cls._watchers[id] = watcher
        context = copy_context()
        watcher.start(reactor.run, cls._fire, id, context, function, args, persistent, update=True)
        return id

    @classmethod
    def delete(cls, id: int) -> bool:
        """Stop a timer; False if there is none of that id (any more)."""
        watcher = cls._watchers.pop(id, None)
        if watcher is None:
            return False
        watcher.stop()
        watcher.close()
        return True

    @classmethod
    def delete_all(cls) -> None:
        """Stop every timer of this process."""
        for id in list(cls._watchers):
            cls.delete(id)

    @classmethod
    def _fire(
        cls,
        id: int,
        context: Context,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        persistent: bool,
    ) -> None:
        if not persistent:
            cls.delete(id)
        elif id in cls._running:
            return
        cls._running.add(id)
        try:
            context.copy().run(function, *args)
        finally:
            cls._running.discard(id)
