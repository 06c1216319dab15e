"""`ClientConnection`: one connection with the calls that are on their way over it.

It reads in the hub, and no user code runs before all of what it has read is accounted for. Calls
made in one iteration of the loop go out in one send. When it ends, it knows of each of its calls
whether the kernel had taken the whole line: only then can the server have read it.

It ends no call and opens no other connection: it tells its owner, which does.
"""

from __future__ import annotations

import _socket
import random
from collections.abc import Callable
from enum import IntEnum
from math import inf
from time import monotonic
from typing import Any, ClassVar, Final, Protocol

from ..errors import TaskError
from ..logs.loggers import get_logger
from ..net.connector import Connector
from ..net.reactor import Reactor
from ..net.stream import OPEN, Stream, StreamState
from ..protocols.text import TextDecoder
from .calls import Call
from .endpoint import Endpoint
from .options import Options

log = get_logger("gtask.client")

UNACKNOWLEDGED_MILLISECONDS = 60_000  # that what was sent may be, before the host counts as gone

FRESH_SECONDS = 0.001  # after it was read, a connection is written to without another look
MAX_READS = 64  # of one look
MIN_LIFE_SECONDS = 1.0  # a connection that is sent away before that without an answer is a failure

Answer = tuple[Call, Any, TaskError | None]  # the result, or else the error


class Stage(IntEnum):
    """What a connection is good for; nothing else says whether it takes calls.

    OPENING ──► READY ──► DRAINING ──► CLOSED        any stage may go to CLOSED at once
       │        │   ▲        ▲
       │        ▼   │        │
       └─────► PROBING ──────┘
    """

    OPENING = 0  # connecting, and then waiting for the peer's first word
    READY = 1  # takes calls, up to its `capacity`
    PROBING = 2  # the peer was silent for too long; no new calls until it speaks
    DRAINING = 3  # no new calls; closed after the last answer
    CLOSED = 4


# Names of the module are found faster than attributes of an enum.
OPENING: Final = Stage.OPENING
READY: Final = Stage.READY
PROBING: Final = Stage.PROBING
DRAINING: Final = Stage.DRAINING


class ConnectionOwner(Protocol):
    """Whom a connection tells what has become of it and its calls; always in the hub."""

    def connection_ready(self, connection: ClientConnection) -> None:
        """It takes calls from now on, or again."""

    def connection_unready(self, connection: ClientConnection) -> None:
        """It takes no new calls, for now or for good."""

    def connection_silent(self, connection: ClientConnection) -> None:
        """It is connected, but the peer has not said a word within `connect_timeout`."""

    def connection_useless(self, connection: ClientConnection, why: str) -> None:
        """It drains before it was of any use."""

    def is_wanted(self, connection: ClientConnection) -> bool:
        """Calls wait for a silent one: it is to be kept although none is on it."""

    def calls_returned(self, connection: ClientConnection, calls: list[Call]) -> None:
        """The connection will not send these, which are not among its `calls` any more."""

    def calls_answered(self, connection: ClientConnection, answers: list[Answer]) -> None:
        """Calls were answered, which are not among its `calls` any more; end them.

        No user code may run meanwhile. Whoever waits for a result is told by the connection,
        afterwards; whoever waits for an error, by the owner.
        """

    def connection_lost(self, connection: ClientConnection, reason: str, is_failure: bool) -> None:
        """It is closed, and nothing that still is among its `calls` will be answered.

        Args:
            is_failure: nobody closed it and it was never of use, so its endpoint is in trouble.
        """


class ClientConnection(Stream):
    """What both dialects share: connecting, sending, and accounting for calls at the end.

    Attributes:
        capacity: how many calls it takes at once.
        calls: those that were put on it and not answered yet, by id.
        endpoint: where it leads.
        heard_at: when the peer last sent something, on the monotonic clock; 0: never.
        stage: see `Stage`.
    """

    __slots__ = (
        "_batch",
        "_connector",
        "_decoder",
        "_handed_on",
        "_has_answered",
        "_has_served",
        "_looked_at",
        "_options",
        "_owner",
        "_queued",
        "_ready_at",
        "_timer",
        "calls",
        "endpoint",
        "heard_at",
        "stage",
    )

    capacity: ClassVar[float] = inf

    def __init__(
        self, reactor: Reactor, owner: ConnectionOwner, endpoint: Endpoint, options: Options
    ) -> None:
        super().__init__(reactor)
        self.endpoint = endpoint
        self.calls: dict[int, Call] = {}
        self.heard_at = 0.0
        self.stage = OPENING
        endpoint.in_use += 1
        self._owner = owner
        self._options = options
        self._connector: Connector | None = None
        self._decoder = TextDecoder(options.max_frame_bytes)
        self._timer: Any = None  # of the stage
        self._batch: list[bytes] = []  # lines that go out at the end of this iteration of the loop
        self._queued = 0  # octets put into batches so far
        self._handed_on = 0  # of these, octets that left them
        self._has_served = False  # the peer has spoken as one that serves
        self._has_answered = False  # it has answered a call
        self._looked_at = 0.0  # when it was last read out of turn, on the monotonic clock
        self._ready_at = 0.0  # when it became ready first

    def __repr__(self) -> str:
        name, stage = type(self).__name__, Stage(self.stage).name
        return f"<{name} {self.endpoint.address} {stage} {len(self.calls)}>"

    # -- what its owner asks for ----------------------------------------------------------------

    def connect(self) -> None:
        """Begin; the owner is told of success or failure, not before this returns."""
        self.state = StreamState.CONNECTING
        self._connector = Connector(
            self._reactor,
            self.endpoint.address,
            self._options.connect_timeout,
            self._connected,
            self._abort,
        )
        self._connector.start()

    def put(self, call: Call) -> None:
        """Send a call."""
        raise NotImplementedError

    def forget(self, call: Call) -> None:
        """Let go of a call that has ended without an answer."""
        raise NotImplementedError

    def probe(self) -> bool:
        """Ask whether the peer lives: a call's time ran out, and it was silent all the while.

        Returns:
            False if there is no way to ask.
        """
        raise NotImplementedError

    def was_sent(self, call: Call) -> bool:
        """The kernel has taken the whole line, so the server may have read it."""
        # What TLS writes has other offsets: there, a line counts as sent a little early.
        sent = self.bytes_written if self._tls is None else self._handed_on
        return call._mark <= sent

    def drain(self) -> None:
        """Take no new calls, hand back what is not sent yet; close after the last answer."""
        if self.stage is READY or self.stage is PROBING:
            self._enter(DRAINING)
            self._stop_timer()
            unsent = self._take_back()
            self._owner.connection_unready(self)
            if unsent:
                self._owner.calls_returned(self, unsent)
            self._close_if_done()

    def look(self) -> None:
        """Read what has come while nothing ran the loop, or while the loop was busy; hub only.

        A goodbye that lies unread in the socket would cost the calls that are written after it.
        """
        for _ in range(MAX_READS):
            if self.state != StreamState.OPEN or not self._readable():
                return

    def send_now(self) -> None:
        """Send what was put here in this iteration of the loop, without a look."""
        self._looked_at = monotonic()
        self._flush()

    def end(self, reason: str) -> None:
        """Send what was put here in this iteration of the loop, and close."""
        if self.state == StreamState.OPEN:
            has_words = bool(self._batch)
            self.send_now()
            self._close(reason, linger=has_words)
        else:
            self._abort(reason)

    def abandon(self) -> None:
        """Close at once, saying nothing more to the peer and nothing of the calls."""
        self.endpoint.load -= len(self.calls)
        self.calls.clear()
        self._abort("abandoned")

    # -- for both dialects ----------------------------------------------------------------------

    def _enter(self, stage: Stage) -> None:
        """Change the stage; nothing else does."""
        endpoint = self.endpoint
        endpoint.in_use += (stage <= READY) - (self.stage <= READY)
        if self.stage is READY:
            endpoint.ready.remove(self)
        if stage is READY:
            endpoint.ready.append(self)
        self.stage = stage

    def _connected(self, socket: Any) -> None:
        self._connector = None
        address = self.endpoint.address
        if not address.is_unix:
            socket.setsockopt(
                _socket.IPPROTO_TCP, _socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS
            )
        try:
            self._open_calling(socket, self._options.ssl_context, address.server_name)
        except ValueError as error:
            self._abort(f"TLS: {error}")
        if self.state == StreamState.OPEN:
            self._start_timer(self._options.connect_timeout, self._never_spoke)
            self._greet()

    def _greet(self) -> None:
        raise NotImplementedError

    def _never_spoke(self) -> None:
        self._abort("connected, but no answer")

    def _become_ready(self) -> None:
        """Take calls, until the connection's age says otherwise."""
        self._enter(READY)
        self._ready_at = self._ready_at or monotonic()
        max_age = self._options.max_age
        if max_age:
            self._start_timer(max_age * random.uniform(0.8, 1.2), self.drain)
        else:
            self._stop_timer()
        self._owner.connection_ready(self)

    # -- sending --------------------------------------------------------------------------------

    def _post(self, line: bytes) -> int:
        """Put a line into the batch; returns where it ends in all output."""
        if not self._batch:
            self._reactor.loop.run_callback(self._flush)
        self._batch.append(line)
        self._queued += len(line)
        return self._queued

    def _flush(self) -> None:
        """Send the batch, unless the peer turns out to have said goodbye; hub only."""
        if monotonic() - self.heard_at > FRESH_SECONDS:
            self._look_again()
        batch = self._batch
        if not batch or self.state != OPEN:
            return
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        batch.clear()
        self._handed_on = self._queued
        self._write(data)

    def _look_again(self) -> None:
        now = monotonic()
        if now - self._looked_at > FRESH_SECONDS:
            self._looked_at = now
            self.look()

    def _take_back(self) -> list[Call]:
        """The calls whose lines are still in the batch; they are removed from it."""
        unsent = [call for call in self.calls.values() if call._mark > self._handed_on]
        marks = {call._mark for call in unsent}
        end, others = self._handed_on, []
        for line in self._batch:
            end += len(line)
            if end not in marks:
                others.append(line)
        self._batch[:] = others
        self._queued = self._handed_on + sum(map(len, others))
        for call in unsent:
            del self.calls[call.id]
        self.endpoint.load -= len(unsent)
        return unsent

    def _has_asked(self) -> bool:
        """A call is on its way, so that an answer can be its."""
        return any(call._mark <= self._handed_on for call in self.calls.values())

    # -- the end --------------------------------------------------------------------------------

    def _close_if_done(self) -> None:
        if self.stage is DRAINING and not self.calls:
            self._close("drained")

    def _ended(self) -> None:
        self._abort("closed by the peer")

    def _closed(self, reason: str) -> None:
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        self._stop_timer()
        is_failure = not self._has_served and self.stage is not DRAINING
        self._enter(Stage.CLOSED)
        self.endpoint.load -= len(self.calls)
        self._owner.connection_lost(self, reason, is_failure)
        log.debug("%r ended: %s", self, reason)

    def _start_timer(self, seconds: float, function: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._reactor.loop.timer(seconds)
        self._timer.start(self._look_first, function, update=True)

    def _look_first(self, function: Callable[[], None]) -> None:
        """The timer's time has come; but what has come before that counts."""
        stage = self.stage
        self.look()
        if self.stage is stage:
            function()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
