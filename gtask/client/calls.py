"""`Call`: one call and its one end; and waiting for several.

A call is ended by its pool alone, in the hub: first its outcome is set, then those who wait are
told, in greenlets of their own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextvars import Context, copy_context
from math import inf
from time import monotonic
from typing import Any, NoReturn, Protocol

import gevent
from gevent._hub_local import get_hub_if_exists
from greenlet import getcurrent

from ..errors import TaskError
from ..net.reactor import Reactor

MAX_REPORTS = 1000  # kept for an `on_progress` that is slower than its task


class CallOwner(Protocol):
    """Whoever carries a call out.

    Attributes:
        reactor: of the native thread that made the call.
    """

    reactor: Reactor

    def cancel(self, call: Call) -> bool:
        """End a call because its caller says so; False if it was done."""


class Call:
    """A call that was made with `TaskClient.call`.

    It is waited for in the native thread that made it, by any number of greenlets. Its callbacks
    run in that thread, each in the context (`contextvars`) of who has given it.

    Attributes:
        id: its number on the wire.
        function: the task's name.
        done: True once it has ended, well or badly.
    """

    __slots__ = (
        "__weakref__",
        "_args",
        "_avoid",
        "_context",
        "_deadline",
        "_error",
        "_give_up_at",
        "_is_reporting",
        "_links",
        "_made_at",
        "_mark",
        "_on_error",
        "_on_progress",
        "_on_result",
        "_owes_end",
        "_owner",
        "_reports",
        "_result",
        "_retries",
        "_retry_at",
        "_timeout",
        "_tries",
        "done",
        "function",
        "id",
    )

    def __init__(
        self,
        owner: CallOwner,
        id: int,
        function: str,
        args: bytes,
        on_result: Callable[[Any], Any] | None,
        on_error: Callable[[TaskError], Any] | None,
        on_progress: Callable[[Any, Any, Any], Any] | None,
        timeout: float | None,
        limit: float,
        retries: int,
    ) -> None:
        self._owner = owner
        self.id = id
        self.function = function
        self._args = args  # as JSON
        self._on_result = on_result
        self._on_error = on_error
        self._on_progress = on_progress
        self._context: Context | None = None  # of the callbacks
        if on_result is not None or on_error is not None or on_progress is not None:
            self._context = copy_context()
        self._timeout = timeout  # what the server is told; None: nothing
        self._made_at = monotonic()  # as all times here
        self._deadline = self._made_at + limit
        self._retries = retries  # left
        self._avoid: Any = None  # the endpoint at which it has failed
        self._tries = 0
        self._mark = 0  # where its line ends in the output of its connection; 0 while it has none
        self._give_up_at = inf  # while it waits for a connection
        self._retry_at = inf  # while it waits for its next try
        self._links: list[Callable[[Call], Any]] | None = None
        self._reports: deque[tuple[Any, Any, Any]] | None = None
        self._is_reporting = False
        self._owes_end = False
        self._result: Any = None
        self._error: TaskError | None = None
        self.done = False

    def __repr__(self) -> str:
        state = "done" if self.done else "sent" if self._mark else "waiting"
        return f"<Call {self.id} {self.function} {state}>"

    def get(self, timeout: float | None = None) -> Any:
        """Wait for the result; other greenlets go on meanwhile.

        Args:
            timeout: seconds to wait; the call itself goes on after that.

        Raises:
            TaskError: the call failed; see `gtask.errors`.
            TimeoutError: not done within `timeout` seconds.
        """
        if not self.done:
            if timeout is None:
                self._wait()
            else:
                self._wait_for(timeout)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._result

    @property
    def error(self) -> TaskError | None:
        """What the call failed with; None if it did not, or has not ended yet."""
        return self._error

    def cancel(self) -> bool:
        """End the call with `TaskCancelled`, and tell the server; False if it was done.

        In another thread than that of the call it is ended there, when the loop runs next.
        """
        if self._is_at_home():
            return self._owner.cancel(self)
        if not self.done:
            self._owner.reactor.loop.run_callback_threadsafe(self._owner.cancel, self)
        return not self.done

    def link(self, callback: Callable[[Call], Any]) -> None:
        """Have `callback(call)` called in a greenlet of the call's thread once it is done."""
        reactor, context = self._owner.reactor, copy_context()

        def tell(call: Call) -> None:
            reactor.run(context.run, callback, call)

        if self._is_at_home():
            self.rawlink(tell)
        else:
            reactor.loop.run_callback_threadsafe(self.rawlink, tell)

    def rawlink(self, callback: Callable[[Call], Any]) -> None:
        """As `link`, in the hub, where nothing may block: `gevent.wait` needs it.

        Raises:
            RuntimeError: this is another thread than the call's.
        """
        self._must_be_at_home()
        if self.done:
            self._owner.reactor.loop.run_callback(callback, self)
        else:
            self._link(callback)

    def _link(self, callback: Callable[[Call], Any]) -> None:
        if self._links is None:
            self._links = [callback]
        else:
            self._links.append(callback)

    def unlink(self, callback: Callable[[Call], Any]) -> None:
        """Undo `rawlink`."""
        if self._links and callback in self._links:
            self._links.remove(callback)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Call can be neither copied nor pickled: its answer comes here, once")

    # -- waiting ------------------------------------------------------------------------------

    def _is_at_home(self) -> bool:
        """This is the native thread that has made the call."""
        return get_hub_if_exists() is self._owner.reactor.hub

    def _must_be_at_home(self) -> None:
        if not self._is_at_home():
            raise RuntimeError(
                f"{self.function}: a call is waited for in the thread that made it; in others,"
                " use its callbacks or `link`"
            )

    def _wait(self) -> None:
        hub = self._owner.reactor.hub
        current = getcurrent()
        if get_hub_if_exists() is not hub:
            self._must_be_at_home()
        if current is hub:
            raise RuntimeError("a call cannot be waited for in the hub, which would have to go on")
        switch = current.switch
        self._link(switch)
        try:
            while not self.done:
                hub.switch()
        finally:
            self.unlink(switch)

    def _wait_for(self, timeout: float) -> None:
        limit = gevent.Timeout(timeout)
        try:
            with limit:
                self._wait()
        except gevent.Timeout as error:
            if error is not limit:
                raise
            raise TimeoutError(f"{self.function}: not done after {timeout:g} s") from None

    # -- for the pool and its connections, in the hub -----------------------------------------

    def _time_left(self) -> float | None:
        """Seconds to tell the server; None if its own limit shall do."""
        if self._timeout is None:
            return None
        return max(0.001, self._deadline - monotonic())

    def _announce(self) -> None:
        """Tell everybody who waits that the call is done."""
        while self._links:
            self._links.pop(0)(self)
        if self._is_reporting:
            self._owes_end = True  # to follow the last report
        else:
            self._tell()

    def _tell(self) -> None:
        """Have the callback called that is for the end."""
        if self._error is None:
            if self._on_result is not None:
                self._start(self._on_result, self._result)
        elif self._on_error is not None:
            self._start(self._on_error, self._error)

    def _start(self, callback: Callable[[Any], Any], value: Any) -> None:
        assert self._context is not None
        self._owner.reactor.start(self._context.run, callback, value)

    def _report(self, done: Any, total: Any, note: Any) -> None:
        """Keep a progress report for `_start_reporting`; what is too much is dropped."""
        if self._reports is None:
            self._reports = deque()
        if len(self._reports) < MAX_REPORTS:
            self._reports.append((done, total, note))

    def _start_reporting(self) -> None:
        if self._reports and not self._is_reporting:
            self._is_reporting = True
            self._owner.reactor.run(self._deliver)

    def _deliver(self) -> None:
        """Pass reports on in their order, then the end; runs in a greenlet of its own."""
        assert self._reports is not None
        assert self._on_progress is not None
        assert self._context is not None
        try:
            while self._reports:
                self._context.run(self._on_progress, *self._reports.popleft())
        finally:  # whatever one report's receiver raised, the rest follows
            if self._reports:
                self._owner.reactor.start(self._deliver)
            else:
                self._is_reporting = False
                if self._owes_end:
                    self._tell()


def wait(calls: Iterable[Call], timeout: float | None = None) -> list[Call]:
    """Wait until all of `calls` are done, or for `timeout` seconds.

    Returns:
        Those that are done, in the order given.

    Raises:
        RuntimeError: one that is not done was made in another thread.
    """
    calls = list(calls)
    for _ in _completions(calls, timeout):
        pass
    return [call for call in calls if call.done]


def as_completed(calls: Iterable[Call], timeout: float | None = None) -> Iterator[Call]:
    """Each of `calls` as soon as it is done.

    Raises:
        TimeoutError: some are not done `timeout` seconds after the first was asked for.
    """
    calls = list(calls)
    count = 0
    for call in _completions(calls, timeout):
        count += 1
        yield call
    if count < len(calls):
        raise TimeoutError(f"{len(calls) - count} of {len(calls)} calls not done")


def _completions(calls: list[Call], timeout: float | None) -> Iterator[Call]:
    pending = [call for call in calls if not call.done]
    for call in pending:
        call._must_be_at_home()
    yield from [call for call in calls if call.done]
    if pending:
        yield from gevent.iwait(pending, timeout)
