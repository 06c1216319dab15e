"""`Clock`: puts the tasks of ``[cron:NAME]`` sections when they are due.

A moment's task has the id ``cron:NAME:MOMENT``, so that any number of hosts may carry the section. What was missed is
made up for once, if its grace is not over; a name that is seen for the first time makes up for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ..errors import TaskError
from ..store_address import StoreAddress
from .operations import CronDone, CronSeen, Operation, Put
from .records import NewTask

KEPT_MS = 3_600_000  # beyond the grace, a task's record tells other hosts that it was put


class Section(Protocol):
    """A ``[cron:NAME]`` section."""

    @property
    def name(self) -> str: ...
    @property
    def queue(self) -> StoreAddress: ...
    @property
    def when(self) -> str: ...
    @property
    def function(self) -> str: ...
    @property
    def args(self) -> str: ...
    @property
    def timezone(self) -> str: ...
    @property
    def grace(self) -> float: ...


class Asks(Protocol):
    """Where operations go."""

    def submit(self, operation: Operation, then: Callable[[Any], None]) -> None: ...


class _Entry:
    """A section, and when it is looked at next; milliseconds of the unix clock."""

    def __init__(self, section: Section) -> None:
        self.section = section
        self.done: int | None = None  # all moments up to this one are dealt with
        self.next: int | None = None
        self.is_asking = False


class Clock:
    """All sections of one store.

    Args:
        now: milliseconds of the unix clock.
    """

    def __init__(self, sections: Iterable[Section], asks: Asks, now: Callable[[], int]) -> None:
        self._entries = [_Entry(section) for section in sections]
        self._asks = asks
        self._now = now

    def tick(self) -> None:
        """Put what is due; to be called about each second."""
        for entry in self._entries:
            if entry.is_asking:
                continue
            if entry.done is None:
                self._ask_when_done(entry)
            elif entry.next is None or self._now() >= entry.next:
                self._look(entry, entry.done)

    def _ask_when_done(self, entry: _Entry) -> None:
        def then(done: Any) -> None:
            entry.is_asking = False
            if not isinstance(done, TaskError):
                entry.done = done

        entry.is_asking = True
        self._asks.submit(CronSeen(entry.section.name), then)

    def _look(self, entry: _Entry, done: int) -> None:
        section, now = entry.section, self._now()
        due, entry.next = _due(section, max(done, now - int(section.grace * 1000)), now)
        if due is None:
            return

        def then(outcome: Any) -> None:
            entry.is_asking = False
            if isinstance(outcome, TaskError):
                entry.next = None  # look again
            else:
                entry.done = due

        entry.is_asking = True
        self._asks.submit(Put(section.queue.queue, _task(section, due)), lambda outcome: None)
        self._asks.submit(CronDone(section.name, due), then)


def _due(section: Section, after: int, now: int) -> tuple[int | None, int]:
    """The last moment after `after` that is not later than now, and the first that is."""
    due = None
    zone = ZoneInfo(section.timezone)
    for moment in CronSim(section.when, datetime.fromtimestamp(after // 1000, zone)):
        at = int(moment.timestamp()) * 1000
        if at > now:
            return due, at
        if at > after:
            due = at
    return due, now + int(timedelta(days=1).total_seconds()) * 1000  # it never comes again


def _task(section: Section, due: int) -> NewTask:
    return NewTask(
        f"cron:{section.name}:{due // 1000}",
        section.function,
        section.args.encode(),
        result_ttl_ms=int(section.grace * 1000) + KEPT_MS,
    )
