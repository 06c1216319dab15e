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
from ..errors import Draining, Overloaded, TaskCancelled, TaskError, TaskTimedOut, WorkerLost
from ..net.reactor import Reactor
from .bare import BareConnection
from .calls import Call
from .connection import OPENING, READY, Answer, ClientConnection
from .deadlines import Deadlines
from .endpoint import Endpoint
from .options import Options
from .rpc import RpcConnection

COMPARED = 8  # connections of which the least loaded gets a call
FIRST_DELAY = 0.05  # seconds before the first repetition; doubled with each further one
MAX_DELAY = 5.0
SHARING_SECONDS = 0.02  # that calls wait for connections which open at the same time
MAX_MOVES = 8  # times that draining servers may hand one call back


class ConnectionPool:
    """Puts calls on connections, opens these as they are needed, and ends the calls.

    Attributes:
        calls: the unfinished ones, by id.
        waiting: those of them that wait for a connection, by id, in order.
        connections: all that are not closed yet, the one that was given a call last at the end;
            their `stage` says which take calls.
    """

    def __init__(self, reactor: Reactor, addresses: list[Address], options: Options) -> None:
        self.reactor = reactor
        self.options = options
        self.calls: dict[int, Call] = {}
        self.waiting: OrderedDict[int, Call] = OrderedDict()
        self.connections: list[ClientConnection] = []
        self.endpoints = [
            Endpoint(reactor, address, options.connections, self._try_again)
            for address in addresses
        ]
        self.deadlines = Deadlines(reactor, self.calls, self._check)
        self.next_id = itertools.count(1).__next__
        self.is_closed = False
        self._kind = BareConnection if options.dialect == "bare" else RpcConnection
        self._can_grow = True  # some endpoint may get one more connection,
        self._is_thin = True  # and has none at all
        self._sharing: Any = None  # timer, while calls wait for connections that open

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
        self._withdraw(call, TaskCancelled(f"{call.function}: cancelled"))
        return True

    def close(self) -> None:
        """End everything; servers are told to cancel what they are doing for us."""
        self.is_closed = True
        for call in list(self.calls.values()):
            self._withdraw(call, TaskCancelled("the client was closed"))
        self._stop_timers()
        for connection in list(self.connections):
            connection.end("the client was closed")

    def abandon(self) -> None:
        """Let go of every connection and timer, without a word to anybody."""
        self.is_closed = True
        self.calls.clear()
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
        self._finish(call, error)
        for connection in self.connections:
            if call.id in connection.calls:
                connection.forget(call)
                return connection
        return None

    def _fail(self, call: Call, error: TaskError) -> None:
        """End a call with `error`, or repeat it if it may be repeated."""
        if error.retryable and call._retries > 0:
            delay = _delay(call, error)
            if monotonic() + delay < call._deadline:
                call._retries -= 1
                self._dispatch_later(call, delay)
                return
        self._finish(call, error)

    def _move(self, call: Call, error: TaskError) -> None:
        """Make a call elsewhere that a draining server did not start."""
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
        connection = self._pick()
        if self._can_grow and (connection is None or connection.calls or self._is_thin):
            self._grow(len(self.waiting) + 1)
        if connection is None or (connection.calls and self._sharing is not None):
            self._wait(call)
        else:
            connection.put(call)

    def _pick(self) -> ClientConnection | None:
        """The least loaded of those that were given a call longest ago, so that equals share."""
        best, least, left = None, self._kind.capacity, COMPARED
        for connection in self.connections:
            if connection.stage is not READY:
                continue
            load = len(connection.calls)
            if load < least:
                best, least = connection, load
            if best is not None:
                left -= 1
            if not load or not left:
                break
        if best is not None:
            self.connections.remove(best)
            self.connections.append(best)
        return best

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
            self._give_up()
        elif now >= call._retry_at:
            call._retry_at = inf
            self._dispatch(call)

    def _time_out(self, call: Call) -> None:
        connection = self._withdraw(call, TaskTimedOut(f"{call.function}: no result in time"))
        if connection is None or connection.heard_at >= call._made_at:
            return
        if not connection.probe():
            self._endpoint_failed(connection.endpoint, "no answer")

    def _give_up(self) -> None:
        """Fail the calls that have waited long enough, if all endpoints are known to be down."""
        if not all(endpoint.is_down for endpoint in self.endpoints):
            return
        now = monotonic()
        while self.waiting:
            call = next(iter(self.waiting.values()))  # the one that waits longest
            if now < call._give_up_at:
                break
            del self.waiting[call.id]
            why = "; ".join(f"{each.address}: {each.why}" for each in self.endpoints)
            self._fail(call, WorkerLost(f"no server can be reached: {why}", {"sent": False}))

    def _serve(self, at_most: int) -> None:
        """Put waiting calls on connections, as far as these take them."""
        while self.waiting and at_most > 0:
            connection = self._pick()
            if connection is None:
                break
            connection.put(self.waiting.popitem(last=False)[1])
            at_most -= 1

    # -- told by the connections --------------------------------------------------------------

    def connection_ready(self, connection: ClientConnection) -> None:
        """Share the waiting calls between `connection` and those that are still opening."""
        self._recount()
        opening = self._opening()
        if opening and self._sharing is not None:
            self._serve(ceil(len(self.waiting) / (opening + 1)))
        else:
            self._end_sharing()

    def connection_unready(self, connection: ClientConnection) -> None:
        """Open another one in its place, if calls need it."""
        self._replace()

    def calls_answered(self, connection: ClientConnection, answers: list[Answer]) -> None:
        """End the calls that were answered, or make them again."""
        endpoint = connection.endpoint
        for call, result, error in answers:
            if error is None:
                self._end(call, result, None)
            elif type(error) is Draining:
                connection.drain()
                self._endpoint_failed(endpoint, error.message)
                self._move(call, error)
            else:
                self._fail(call, error)
        if endpoint.failures and any(type(error) is not Draining for _, _, error in answers):
            endpoint.worked()
            self._recount()
        if self.waiting and connection.stage is READY and not connection.calls:
            self._serve(1)  # calls that wait for other connections to open

    def connection_lost(self, connection: ClientConnection, reason: str, is_failure: bool) -> None:
        """End the calls that were sent over `connection`; those that were not go elsewhere."""
        self.connections.remove(connection)
        if is_failure:
            self._endpoint_failed(connection.endpoint, reason)
        self._replace()
        for call in connection.calls.values():
            if connection.was_sent(call):
                error = WorkerLost(f"{connection.endpoint.address}: {reason}", {"sent": True})
                self._fail(call, error)
            else:
                self._dispatch(call)

    # -- endpoints and their connections ------------------------------------------------------

    def open(self, endpoint: Endpoint) -> None:
        """Open one more connection."""
        connection = self._kind(self.reactor, self, endpoint, self.options)
        self.connections.append(connection)
        connection.connect()

    def _endpoint_failed(self, endpoint: Endpoint, why: str) -> None:
        if not self.is_closed:
            endpoint.failed(why)
            self._recount()
            self._give_up()

    def _try_again(self, endpoint: Endpoint) -> None:
        """An endpoint was down for long enough."""
        if endpoint.has_room:
            self.open(endpoint)
        self._recount()

    def _recount(self) -> None:
        """See which endpoints may get one more connection."""
        self._can_grow = self._is_thin = False
        for endpoint in self.endpoints:
            if endpoint.has_room:
                self._can_grow = True
                if not endpoint.in_use:
                    self._is_thin = True

    def _opening(self) -> int:
        return sum(connection.stage is OPENING for connection in self.connections)

    def _grow(self, needed: int) -> None:
        """Open a connection to each endpoint that has none, or one more somewhere if it is needed.

        Args:
            needed: calls that could do with a connection of their own.
        """
        if self.is_closed:
            return
        roomy = [endpoint for endpoint in self.endpoints if endpoint.has_room]
        chosen = [endpoint for endpoint in roomy if not endpoint.in_use]
        if not chosen:
            if not roomy or self._opening() >= needed:
                return
            # Where a server has just sent us away there may be none to come back to.
            chosen = [min(roomy, key=lambda endpoint: (endpoint.in_use, endpoint.goaway_at))]
        self._share()
        for endpoint in chosen:
            self.open(endpoint)
        self._recount()

    def _replace(self) -> None:
        """Open a connection where one was taken out of use, if calls need it."""
        self._recount()
        if self.waiting or (self.calls and self._is_thin):
            self._grow(len(self.waiting))

    def _share(self) -> None:
        """Let calls wait a moment for the connections that open now.

        Else the first burst would all go to the one connection, and hence process, that is first.
        """
        if self._sharing is None:
            self._sharing = self.reactor.loop.timer(SHARING_SECONDS)
            self._sharing.start(self._end_sharing, update=True)

    def _end_sharing(self) -> None:
        if self._sharing is not None:
            self._sharing.stop()
            self._sharing.close()
            self._sharing = None
        self._serve(len(self.waiting))

    def _stop_timers(self) -> None:
        self.deadlines.close()
        self._end_sharing()
        for endpoint in self.endpoints:
            endpoint.close()


def _delay(call: Call, error: TaskError) -> float:
    """Seconds before the next try: exponential with full jitter, after what the server asks."""
    delay = random.uniform(0.0, min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(call._tries, 16)))
    after = error.data.get("retry_after") if isinstance(error.data, dict) else None
    return delay + after if isinstance(after, int | float) and after > 0 else delay
