"""`ConnectionPool`: the endpoints, connections and unfinished calls of one `TaskClient` on one hub.

Every call that was submitted is in `calls` until it ends, and ends once: by an answer, an error,
its deadline, or the pool's own close. Nothing else ends calls. Until then it is in one place: among
a connection's `calls`, in `waiting`, or on its way to the next try.
"""

from __future__ import annotations

import itertools
import random
from collections import OrderedDict
from math import ceil, inf
from time import monotonic
from typing import Any

from ..address import Address
from ..errors import (
    Draining,
    Overloaded,
    TaskCancelled,
    TaskError,
    TaskTimedOut,
    UnknownTask,
    WorkerLost,
)
from ..net.reactor import Reactor
from .budget import RetryBudget
from .calls import Call
from .connection import READY, Answer, ClientConnection
from .deadlines import Deadlines
from .endpoint import Endpoint
from .fleet import Fleet
from .options import Options
from .record import Record
from .sharing import Sharing

FIRST_DELAY = 0.05  # seconds before the first repetition; doubled with each further one
LATE_SECONDS = 0.05  # that a timer fires too late when nothing has run the loop
MAX_DELAY = 5.0
MAX_MOVES = 8  # times that draining servers may hand one call back
MAX_RETRY_AFTER = 1e9  # seconds; whatever a server asks for


class ConnectionPool:
    """Puts calls on connections, opens these as they are needed, and ends the calls.

    Attributes:
        calls: the unfinished ones, by id.
        waiting: those of them that wait for a connection, by id, in order.
        connections, endpoints: see `Fleet`.
    """

    def __init__(self, reactor: Reactor, addresses: list[Address], options: Options) -> None:
        self.reactor = reactor
        self.options = options
        self.calls: dict[int, Call] = {}
        self.waiting: OrderedDict[int, Call] = OrderedDict()
        self.deadlines = Deadlines(reactor, self.calls, self._check)
        self.next_id = itertools.count(1).__next__
        self.is_closed = False
        self._budget = RetryBudget(monotonic())
        self._fleet = Fleet(reactor, addresses, options, self)
        self._sharing = Sharing(reactor, self._end_sharing, self._step)
        self.connections = self._fleet.connections
        self.endpoints = self._fleet.endpoints
        self.open = self._fleet.open

    # -- a call's life ------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a new call."""
        self.calls[call.id] = call
        if self.is_closed:
            self._finish(call, TaskCancelled("the client is closed"))
        elif len(self.calls) > self.options.max_pending:
            self._finish(call, Overloaded(f"{self.options.max_pending} calls are pending already"))
        else:
            if call._deadline != inf:
                self.deadlines.add(call._deadline, call.id)
            self._dispatch(call)

    def cancel(self, call: Call) -> bool:
        """End a call because its caller says so; False if it was done."""
        if call.done:
            return False
        connection = self._withdraw(call, TaskCancelled(f"{call.function}: cancelled"))
        if connection is not None:
            connection.send_now()  # as nothing may run the loop
        return True

    def close(self) -> None:
        """End everything; servers are told to cancel what they are doing for us."""
        self.is_closed = True
        for call in list(self.calls.values()):
            self._withdraw(call, TaskCancelled("the client was closed"))
        self._stop_timers()
        for connection in list(self.connections):
            connection.end("the client was closed")

    def retire(self) -> None:
        """Nobody can make a call any more: close when the last one has ended."""
        for call in self.calls.values():
            call.rawlink(self._close_if_done)
        self._close_if_done()

    def _close_if_done(self, _: Call | None = None) -> None:
        if not self.calls:
            self.close()

    def dismiss(self, calls: list[Call]) -> None:
        """The program ends: tell the callbacks of these, as nobody else runs any more."""
        for call in calls:
            self._end(call, None, TaskCancelled("the program ends"))
            self.reactor.loop.run_callback(call._tell)

    def was_sent(self, call: Call) -> bool:
        """Whether an unfinished call can have reached a server."""
        connection = self._carrier(call)
        return connection is not None and connection.was_sent(call)

    def abandon(self) -> None:
        """Let go of every connection and timer, without a word to anybody."""
        self.is_closed = True
        for call in list(self.calls.values()):
            self._end(call, None, TaskCancelled("its thread has ended, or it is the parent's"))
        self.waiting.clear()
        self._stop_timers()
        for connection in list(self.connections):
            connection.abandon()

    def _end(self, call: Call, result: Any, error: TaskError | None) -> None:
        """The one place where a call ends; whoever calls this has those told who wait for it."""
        call.done = True
        call._result, call._error = result, error
        self.calls.pop(call.id, None)

    def _finish(self, call: Call, error: TaskError) -> None:
        """End a call with `error`; those who wait are told in a moment, from the hub."""
        self._end(call, None, error)
        self.waiting.pop(call.id, None)
        self.reactor.loop.run_callback(call._announce)

    def _withdraw(self, call: Call, error: TaskError) -> ClientConnection | None:
        """End a call with `error` and take it off its connection, if it is on one."""
        connection = self._carrier(call)
        self._finish(call, error)
        if connection is not None:
            connection.forget(call)
        return connection

    def _carrier(self, call: Call) -> ClientConnection | None:
        """The connection that a call is on."""
        for connection in self.connections:
            if call.id in connection.calls:
                return connection
        return None

    def _fail(self, call: Call, error: TaskError, endpoint: Endpoint | None = None) -> None:
        """End a call with `error`, or repeat it if it may be repeated, elsewhere at first."""
        # Not every host may have the task yet, while new code is rolled out.
        is_elsewhere = type(error) is UnknownTask and self._fleet.has_another(endpoint)
        if call._retries > 0 and (error.retryable or is_elsewhere):
            now, delay = monotonic(), _delay(call, error)
            made = next(reversed(self.calls), call.id)  # calls are numbered
            if now + delay < call._deadline and self._budget.spend(made, now):
                call._retries -= 1
                call._avoid = endpoint
                self._dispatch_later(call, delay)
                return
        self._finish(call, error)

    def _move(self, call: Call, error: TaskError, endpoint: Endpoint) -> None:
        """Make a call elsewhere that a draining server did not start."""
        call._avoid = endpoint
        if call._tries >= MAX_MOVES:
            self._fail(call, error)
        elif not call._tries and any(each.stage is READY for each in self.connections):
            call._tries = 1
            self._dispatch(call)
        else:
            self._dispatch_later(call, _delay(call, error))

    # -- from a call to its connection --------------------------------------------------------

    def _dispatch(self, call: Call) -> None:
        """Put a call on a connection, or have it wait for one."""
        fleet = self._fleet
        only = fleet.only
        connection = fleet.pick(call._avoid) if only is None else only.least_loaded()
        if fleet.can_grow and (connection is None or connection.calls or fleet.is_thin):
            self._grow(len(self.waiting) + 1)
        if connection is None or (connection.calls and self._sharing.is_on):
            self._wait(call)
        else:
            connection.put(call)

    def _wait(self, call: Call) -> None:
        """Keep a call until there is a connection."""
        call._mark = 0
        call._give_up_at = monotonic() + self.options.patience
        self.waiting[call.id] = call
        self.deadlines.add(call._give_up_at, call.id)

    def _dispatch_later(self, call: Call, delay: float) -> None:
        call._mark = 0
        call._tries += 1
        call._retry_at = monotonic() + delay
        self.deadlines.add(call._retry_at, call.id)

    def _check(self, call: Call, now: float) -> None:
        """A call's time has come: for its end, for giving up, or for the next try."""
        if now >= call._deadline:
            self._time_out(call)
        elif call.id in self.waiting:
            if now > call._give_up_at + LATE_SECONDS:
                self._wait(call)  # nothing has run the loop, so nobody can have come back
            else:
                self._give_up()
        elif now >= call._retry_at:
            call._retry_at = inf
            self._dispatch(call)

    def _time_out(self, call: Call) -> None:
        connection = self._carrier(call)
        if connection is not None:
            connection.look()  # the answer may be there, if nothing has run the loop for a while
            if call.done:
                return
        connection = self._withdraw(call, TaskTimedOut(f"{call.function}: no result in time"))
        if connection is None or connection.heard_at >= call._made_at:
            return
        if not connection.probe():
            self._endpoint_failed(connection.endpoint, "no answer")

    def _give_up(self) -> None:
        """Fail the calls that have waited long enough, if no endpoint can be reached."""
        if not self.waiting or not self._fleet.is_unreachable:
            return
        now = monotonic()
        while self.waiting:
            call = next(iter(self.waiting.values()))  # the one that waits longest
            if now < call._give_up_at:
                break
            del self.waiting[call.id]
            why = self._fleet.why_unreachable()
            self._fail(call, WorkerLost(f"no server can be reached: {why}", {"sent": False}))

    def _serve(self, at_most: int) -> None:
        """Put waiting calls on connections, as far as these take them."""
        while self.waiting and at_most > 0:
            connection = self._fleet.pick(None)
            if connection is None:
                break
            connection.put(self.waiting.popitem(last=False)[1])
            at_most -= 1

    # -- told by the connections --------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        """Share the waiting calls between `connection` and those that are still opening."""
        self._fleet.recount()
        opening = self._fleet.opening
        if len(self.waiting) > 1 and self._fleet.is_first_back(connection.endpoint):
            connection.endpoint.worked()
            self._fleet.recount()
            self._sharing.begin_slowly()
            self._serve(1)
        elif self._sharing.is_slow:
            self._serve(1)
        elif opening and self._sharing.is_on:
            self._serve(ceil(len(self.waiting) / (opening + 1)))
        else:
            self._end_sharing()

    def connection_unready(self, connection: ClientConnection) -> None:
        """Open another one in its place, if calls need it."""
        self._replace()

    def connection_silent(self, connection: ClientConnection) -> None:
        """Try others, and the same endpoint again, as another process may accept there."""
        self._endpoint_failed(connection.endpoint, "connected, but no answer")

    def connection_useless(self, connection: ClientConnection, why: str) -> None:
        """Leave its endpoint alone for a while."""
        self._endpoint_failed(connection.endpoint, why)

    def is_wanted(self, connection: ClientConnection) -> bool:
        """Whether to keep a silent one: for calls that have nowhere else to go."""
        return bool(self.waiting) and self._fleet.is_only_silent(connection)

    def calls_returned(self, connection: ClientConnection, calls: list[Call]) -> None:
        """Make elsewhere what a connection will not send."""
        for call in calls:
            self._dispatch(call)

    def calls_answered(self, connection: ClientConnection, answers: list[Answer]) -> None:
        """End the calls that were answered, or make them again."""
        endpoint = connection.endpoint
        for call, result, error in answers:
            if error is None:
                self._end(call, result, None)
            else:
                self._refused(call, error, connection)
        if endpoint.failures and any(type(error) is not Draining for _, _, error in answers):
            endpoint.worked()
            self._fleet.recount()
        if endpoint.record is not None:
            endpoint.note([error for _, _, error in answers], monotonic())
        if self.waiting and connection.stage is READY and not connection.calls:
            self._serve(1)  # calls that wait for other connections to open

    def _refused(self, call: Call, error: TaskError, connection: ClientConnection) -> None:
        endpoint = connection.endpoint
        if endpoint.record is None:
            endpoint.record = Record()
        if type(error) is Draining:
            connection.drain()
            self._endpoint_failed(endpoint, error.message)
            self._move(call, error, endpoint)
        else:
            self._fail(call, error, endpoint)

    def connection_lost(self, connection: ClientConnection, reason: str, is_failure: bool) -> None:
        """End the calls that were sent over `connection`; those that were not go elsewhere."""
        self.connections.remove(connection)
        endpoint = connection.endpoint
        if is_failure:
            self._endpoint_failed(endpoint, reason)
        self._replace()
        for call in connection.calls.values():
            if connection.was_sent(call):
                error = WorkerLost(f"{endpoint.address}: {reason}", {"sent": True})
                self._fail(call, error, endpoint)
            else:
                self._dispatch(call)

    # -- endpoints and their connections ------------------------------------------------------

    def _endpoint_failed(self, endpoint: Endpoint, why: str) -> None:
        if not self.is_closed:
            endpoint.failed(why)
            self._fleet.recount()
            self._give_up()

    def _grow(self, needed: int) -> None:
        """Open a connection to each endpoint that has none, or one more somewhere if it is needed.

        Args:
            needed: calls that could do with a connection of their own.
        """
        chosen = [] if self.is_closed else self._fleet.grow(needed)
        if chosen:
            self._sharing.begin()
            for endpoint in chosen:
                self.open(endpoint)
            self._fleet.recount()

    def _replace(self) -> None:
        """Open a connection where one was taken out of use, if calls need it."""
        self._fleet.recount()
        if self.waiting or (self.calls and self._fleet.is_thin):
            self._grow(len(self.waiting))

    def _step(self) -> None:
        """One more connection to those that come back, so that it may lead to another process."""
        if self.waiting:
            self._grow(self._fleet.opening + 1)
        else:
            self._end_sharing()

    def _end_sharing(self) -> None:
        self._sharing.stop()
        self._serve(len(self.waiting))

    def _stop_timers(self) -> None:
        self.deadlines.close()
        self._end_sharing()
        self._fleet.stop_timers()


def _delay(call: Call, error: TaskError) -> float:
    """Seconds before the next try: exponential with full jitter, after what the server asks."""
    delay = random.uniform(0.0, min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(call._tries, 16)))
    after = error.data.get("retry_after") if isinstance(error.data, dict) else None
    if isinstance(after, int | float) and after > 0:
        return delay + float(min(after, MAX_RETRY_AFTER))
    return delay
