"""`Switchboard`: the endpoints, channels and unfinished calls of one `TaskClient` on one hub.

Every call that was submitted is in `calls` until it ends, and ends once: by an answer, an error,
its deadline, or the switchboard's own close.
"""

from __future__ import annotations

import itertools
import random
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, inf
from time import monotonic
from typing import Any

from ..address import Address
from ..errors import Overloaded, TaskCancelled, TaskError, TaskTimedOut, WorkerLost
from ..net.reactor import Reactor
from .calls import Call
from .channels import Channel, Stage
from .deadlines import Deadlines
from .endpoint import Endpoint

LOOK_AT = 8  # channels compared for each call
FIRST_DELAY = 0.05  # seconds before the first repetition; doubled with each further one
MAX_DELAY = 5.0
SHARING_SECONDS = 0.02  # that calls wait for channels which open at the same time
MAX_MOVES = 8  # times that draining servers may hand one call back


@dataclass(frozen=True)
class Options:
    """`TaskClient`'s arguments; described there."""

    connections: int
    dialect: str
    keep_connections: bool
    connect_timeout: float
    patience: float
    max_age: float
    max_pending: int
    max_frame_bytes: int
    ssl_context: ssl.SSLContext | None


class Switchboard:
    """Puts calls on channels.

    Attributes:
        calls: the unfinished ones, by id.
        waiting: those of them that have no channel yet, by id, in order.
        channels: what may get calls.
        alive: every channel that is not closed yet.
    """

    def __init__(self, reactor: Reactor, addresses: list[Address], options: Options) -> None:
        self.reactor = reactor
        self.options = options
        self.calls: dict[int, Call] = {}
        self.waiting: OrderedDict[int, Call] = OrderedDict()
        self.channels: list[Channel] = []
        self.endpoints = [Endpoint(self, address) for address in addresses]
        self.deadlines = Deadlines(reactor, self.calls, self._look)
        self.next_id = itertools.count(1).__next__
        self.is_closed = False
        self.alive: set[Channel] = set()
        self._can_grow = True  # some endpoint may open one more channel,
        self._is_thin = True  # and has none at all
        self._turn = 0
        self._sharing: Any = None  # timer

    # -- a call's life ------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a new call."""
        if self.is_closed:
            self._refuse(call, TaskCancelled("the client is closed"))
        elif len(self.calls) >= self.options.max_pending:
            self._refuse(call, Overloaded(f"{self.options.max_pending} calls are pending already"))
        else:
            self.calls[call.id] = call
            if call._deadline != inf:
                self.deadlines.add(call._deadline, call.id)
            self._dispatch(call)

    def finish(self, call: Call, result: Any, error: TaskError | None) -> None:
        """End a call; those who wait are told in a moment, from the hub."""
        if call.done:
            return
        call.done = True
        call._result, call._error = result, error
        del self.calls[call.id]
        self.waiting.pop(call.id, None)
        self.reactor.loop.run_callback(call._announce)

    def fail(self, call: Call, error: TaskError) -> None:
        """End a call with `error`, or repeat it if it may be repeated."""
        if error.retryable and call._retries > 0:
            delay = _delay(call, error)
            if monotonic() + delay < call._deadline:
                call._retries -= 1
                self._dispatch_later(call, delay)
                return
        self.finish(call, None, error)

    def move(self, call: Call, error: TaskError) -> None:
        """Make a call elsewhere that a draining server did not start."""
        if call._tries >= MAX_MOVES:
            self.fail(call, error)
        elif self.channels and not call._tries:
            call._tries = 1
            self._dispatch(call)
        else:
            self._dispatch_later(call, _delay(call, error))

    def cancel(self, call: Call) -> bool:
        """End a call because its caller says so."""
        if call.done:
            return False
        self.finish(call, None, TaskCancelled(f"{call.function}: cancelled"))
        if call._channel is not None:
            call._channel.forget(call)
        return True

    def close(self) -> None:
        """End everything; servers are told to cancel what they are doing for us."""
        self.is_closed = True
        for call in list(self.calls.values()):
            self.finish(call, None, TaskCancelled("the client was closed"))
            if call._channel is not None:
                call._channel.forget(call)
        self._stop_timers()
        for channel in list(self.alive):
            channel.end("the client was closed")

    def abandon(self) -> None:
        """Let go of every connection and timer, without a word to anybody."""
        self.is_closed = True
        self.calls.clear()
        self.waiting.clear()
        self._stop_timers()
        for channel in list(self.alive):
            channel.abandon()

    def _stop_timers(self) -> None:
        self.deadlines.close()
        self._end_sharing()
        for endpoint in self.endpoints:
            endpoint.close()

    def _refuse(self, call: Call, error: TaskError) -> None:
        self.calls[call.id] = call
        self.finish(call, None, error)

    def _dispatch(self, call: Call) -> None:
        channel = self._pick() if self.channels else None
        if self._can_grow and (channel is None or channel.outstanding or self._is_thin):
            self._grow(len(self.waiting) + 1)
            if channel is None and self.channels:  # a bare one may be open at once
                channel = self._pick()
        if channel is None or (channel.outstanding and self._sharing is not None):
            self._wait(call)
        else:
            channel.put(call)

    def _pick(self) -> Channel:
        """The least loaded of a few neighbours; the turn moves on, so equals share."""
        channels = self.channels
        count = len(channels)
        turn = self._turn = (self._turn + 1) % count
        best = channels[turn]
        if best.outstanding:
            for step in range(1, min(count, LOOK_AT)):
                channel = channels[turn - step]  # an index below 0 counts from the end
                if channel.outstanding < best.outstanding:
                    best = channel
                    if not best.outstanding:
                        break
        return best

    def _wait(self, call: Call) -> None:
        """Keep a call until there is a channel."""
        self.waiting[call.id] = call
        call._next_look = monotonic() + self.options.patience
        self.deadlines.add(call._next_look, call.id)
        self._give_up()

    def _dispatch_later(self, call: Call, delay: float) -> None:
        call._tries += 1
        call._next_look = monotonic() + delay
        self.deadlines.add(call._next_look, call.id)

    def _look(self, call: Call, now: float) -> None:
        """A call's time has come: for its end, for giving up, or for the next try."""
        if now >= call._deadline:
            self._time_out(call)
        elif call.id in self.waiting:
            self._give_up()
        elif call._channel is None and now >= call._next_look:
            self._dispatch(call)

    def _time_out(self, call: Call) -> None:
        channel = call._channel
        self.finish(call, None, TaskTimedOut(f"{call.function}: no result in time"))
        if channel is not None:
            channel.forget(call)
            if channel.heard_at < call._made_at:
                channel.doubt()

    def _give_up(self) -> None:
        """Fail what has waited long enough, if all endpoints are known to be down."""
        if not self.waiting or not all(endpoint.is_down for endpoint in self.endpoints):
            return
        now = monotonic()
        why = "; ".join(f"{endpoint.address}: {endpoint.why}" for endpoint in self.endpoints)
        for call in list(self.waiting.values()):
            if now >= call._next_look:
                del self.waiting[call.id]
                self.fail(call, WorkerLost(f"no server can be reached: {why}", {"sent": False}))

    # -- endpoints and channels ---------------------------------------------------------------

    def serve(self, at_most: float = inf) -> None:
        """Put waiting calls on channels, as far as there are any."""
        while self.waiting and self.channels and at_most > 0:
            self._pick().put(self.waiting.popitem(last=False)[1])
            at_most -= 1

    def joined(self, channel: Channel) -> None:
        """`channel` takes calls from now on."""
        self.channels.append(channel)
        self.recount()
        opening = self._opening()
        if opening and self._sharing is not None:
            self.serve(ceil(len(self.waiting) / (opening + 1)))
        else:
            self._end_sharing()

    def _opening(self) -> int:
        return sum(channel.stage == Stage.OPENING for channel in self.alive)

    def _share(self) -> None:
        """Let calls wait a moment for the channels that open now.

        Else the first burst would all go to the one channel, and hence process, that is first.
        """
        if self._sharing is None:
            self._sharing = self.reactor.loop.timer(SHARING_SECONDS)
            self._sharing.start(self._end_sharing, update=True)

    def _end_sharing(self) -> None:
        if self._sharing is not None:
            self._sharing.stop()
            self._sharing.close()
            self._sharing = None
        self.serve()

    def withdrew(self, channel: Channel) -> None:
        """`channel` takes no more calls."""
        if channel in self.channels:
            self.channels.remove(channel)
        self.recount()
        if self.waiting or (self.calls and self._is_thin):
            self._grow(len(self.waiting))  # else a call will that needs it

    def channel_lost(self, channel: Channel, reason: str) -> None:
        """`channel` has ended with calls on it: what was not sent yet goes elsewhere."""
        for call in [call for call in self.calls.values() if call._channel is channel]:
            call._channel = None
            if channel.was_sent(call):
                self.fail(call, WorkerLost(f"{channel.address}: {reason}", {"sent": True}))
            else:
                self._dispatch(call)

    def endpoint_failed(self) -> None:
        """An endpoint is down from now on."""
        self.recount()
        self._give_up()

    def recount(self) -> None:
        """See which endpoints could have more channels."""
        short = [endpoint for endpoint in self.endpoints if endpoint.is_short]
        self._can_grow = bool(short)
        self._is_thin = any(not endpoint.channels for endpoint in short)

    def _grow(self, needed: int) -> None:
        """Open a channel to each endpoint that has none, or one more somewhere if it is needed.

        Args:
            needed: calls that could do with a channel of their own.
        """
        short = [endpoint for endpoint in self.endpoints if endpoint.is_short]
        if not short or self.is_closed:
            return
        empty = [endpoint for endpoint in short if not endpoint.channels]
        if not empty:
            if self._opening() >= needed:
                return
            # Where a server has just sent us away there may be none to come back to.
            empty = [min(short, key=lambda endpoint: (len(endpoint.channels), endpoint.left_at))]
        self._share()
        for endpoint in empty:
            endpoint.open()
        self.recount()


def _delay(call: Call, error: TaskError) -> float:
    """Seconds before the next try: exponential with full jitter, after what the server asks."""
    delay = random.uniform(0.0, min(MAX_DELAY, FIRST_DELAY * 2.0 ** min(call._tries, 16)))
    after = error.data.get("retry_after") if isinstance(error.data, dict) else None
    return delay + after if isinstance(after, int | float) and after > 0 else delay
