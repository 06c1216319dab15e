"""A fake of gevent's loop, with a clock that a test moves: what waits for a time waits for the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from greenlet import greenlet


class Clock:
    """Stands for `time.monotonic`: seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeTimer:
    """A timer of the loop, or one of its watchers that nothing ever wakes."""

    def __init__(self, loop: FakeLoop, after: float) -> None:
        self._loop = loop
        self._after = after
        self.due: float | None = None
        self.is_closed = False

    def start(self, callback: Callable[..., Any], *args: Any, update: bool = True) -> None:
        assert not self.is_closed
        self._callback, self._args = callback, args
        self.due = self._loop.clock.now + self._after

    def stop(self) -> None:
        self.due = None

    def close(self) -> None:
        self.stop()
        self.is_closed = True

    def fire(self) -> None:
        self.due = None
        self._callback(*self._args)


class FakeLoop:
    """As much of gevent's loop as gtask's server uses.

    Attributes:
        timers: all that were made and not closed.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self._timers: list[FakeTimer] = []
        self._callbacks: deque[tuple[Callable[..., Any], tuple[Any, ...]]] = deque()

    @property
    def timers(self) -> list[FakeTimer]:
        return [each for each in self._timers if not each.is_closed]

    def timer(self, after: float) -> FakeTimer:
        self._timers.append(FakeTimer(self, after))
        return self._timers[-1]

    def fork(self, ref: bool = True) -> FakeTimer:
        return FakeTimer(self, float("inf"))

    def fileno(self) -> int:
        return -1

    def run_callback(self, callback: Callable[..., Any], *args: Any) -> None:
        self._callbacks.append((callback, args))

    def next_due(self) -> float | None:
        """When the next timer fires."""
        return min((each.due for each in self.timers if each.due is not None), default=None)

    def turn(self) -> None:
        """Run what was asked for, and the timers that are due."""
        while self._callbacks:
            callback, args = self._callbacks.popleft()
            callback(*args)
        self._timers = self.timers
        for timer in list(self._timers):
            if timer.due is not None and timer.due <= self.clock.now:
                timer.fire()

    def advance(self, seconds: float) -> None:
        """Let time pass, with each timer at its moment."""
        until = self.clock.now + seconds
        self.turn()
        while (due := self.next_due()) is not None and due <= until:
            self.clock.now = max(self.clock.now, due)
            self.turn()
        self.clock.now = until
        self.turn()


class FakeHub(greenlet):
    """Stands for gevent's hub: the greenlet of a test, to which greenlets give the CPU back.

    Call what is to run in it: ``FakeHub()(test)``.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = FakeLoop()

    def run(self, work: Callable[[FakeHub], Any]) -> Any:
        return work(self)

    def __call__(self, work: Callable[[FakeHub], Any]) -> Any:
        return self.switch(work)


def in_hub(test: Callable[[FakeHub], None]) -> Callable[[], None]:
    """Have a test run in a `FakeHub`, which it is given."""

    def run() -> None:
        FakeHub()(test)

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run
