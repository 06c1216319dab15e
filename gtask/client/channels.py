"""`RpcChannel`, `BareChannel`: one connection with the calls that are on their way over it.

A channel reads in the hub and never runs user code before all of what it has read is accounted
for. Calls made in one turn of the loop go out in one send. When a channel ends, it knows of each
of its calls whether the kernel had taken the whole line: only then can the server have read it.
"""

from __future__ import annotations

import _socket
import random
from collections.abc import Callable
from enum import IntEnum
from time import monotonic
from typing import TYPE_CHECKING, Any

from ..address import Address
from ..errors import Draining, InternalError, ProtocolError, TaskError
from ..logs.loggers import get_logger
from ..net.connector import Connector
from ..net.stream import State, Stream
from ..protocols.jsontext import loads
from ..protocols.requests import encode_bare, encode_cancel, encode_ping, encode_rpc
from ..protocols.text import TextDecoder
from ..protocols.tls import TlsFilter

if TYPE_CHECKING:
    from .calls import Call
    from .endpoint import Endpoint

log = get_logger("gtask.client")

# A host that vanished without a word is noticed within about a minute, also when nothing is sent.
_KEEPALIVE = (
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 30),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 10),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 3),
    (_socket.IPPROTO_TCP, _socket.TCP_USER_TIMEOUT, 60_000),
)


class Stage(IntEnum):
    """What a channel is good for.

    OPENING ──► SERVING ──► RETIRED ──► GONE        any stage may go to GONE at once
                 │   ▲
                 ▼   │
                 ASIDE
    """

    OPENING = 0  # connecting, and then waiting for the peer's first word
    SERVING = 1  # gets new calls
    ASIDE = 2  # a call's time ran out in silence; no new calls until the peer speaks
    RETIRED = 3  # no new calls; closed after the last answer
    GONE = 4


class Channel(Stream):
    """What both dialects share: connecting, sending, and accounting for calls at the end.

    Attributes:
        outstanding: calls that were put on this channel and not answered yet.
        heard_at: when the peer last sent something, on the monotonic clock.
    """

    __slots__ = (
        "_batch",
        "_board",
        "_connector",
        "_decoder",
        "_endpoint",
        "_handed_on",
        "_queued",
        "_timer",
        "heard_at",
        "outstanding",
        "stage",
    )

    def __init__(self, endpoint: Endpoint) -> None:
        board = endpoint.board
        super().__init__(board.reactor)
        self._endpoint = endpoint
        self._board = board
        self._connector: Connector | None = None
        self._decoder = TextDecoder(board.options.max_frame_bytes)
        self._timer: Any = None  # of the stage
        self._batch: list[bytes] = []  # to go out at the end of this turn of the loop
        self._queued = 0  # octets put into batches so far
        self._handed_on = 0  # of these, octets that left them
        self.outstanding = 0
        self.heard_at = 0.0
        self.stage = Stage.OPENING

    def __repr__(self) -> str:
        name, stage = type(self).__name__, Stage(self.stage).name
        return f"<{name} {self._endpoint.address} {stage} {self.outstanding}>"

    @property
    def address(self) -> Address:
        """Where it leads."""
        return self._endpoint.address

    def connect(self) -> None:
        """Begin; the endpoint is told of success or failure."""
        self.state = State.CONNECTING
        timeout = self._board.options.connect_timeout
        self._connector = Connector(
            self._reactor, self._endpoint.address, timeout, self._connected, self._abort
        )
        self._connector.start()

    def put(self, call: Call) -> None:
        """Send a call."""
        raise NotImplementedError

    def forget(self, call: Call) -> None:
        """Let go of a call that has ended without an answer."""
        raise NotImplementedError

    def retire(self) -> None:
        """Take no new calls; close when the ones under way are answered."""
        if self.stage in (Stage.SERVING, Stage.ASIDE):
            self._endpoint.withdrew(self)
            self.stage = Stage.RETIRED
            self._stop_timer()
            self._close_if_done()

    def doubt(self) -> None:
        """A call's time ran out, and the peer was silent all the while."""
        raise NotImplementedError

    def end(self, reason: str) -> None:
        """Send what this turn has collected, and close."""
        if self.state == State.OPEN:
            self._flush()
            self._close(reason, linger=True)
        else:
            self._abort(reason)

    def abandon(self) -> None:
        """Close at once and say nothing more."""
        self._abort("abandoned")

    # -- for both dialects ----------------------------------------------------------------------

    def _connected(self, socket: Any) -> None:
        self._connector = None
        tls = None
        options = self._board.options
        address = self._endpoint.address
        if not address.is_unix:
            for option in _KEEPALIVE:
                socket.setsockopt(*option)
        if options.ssl_context is not None:
            try:
                tls = TlsFilter(
                    options.ssl_context, server_side=False, server_hostname=address.host or None
                )
            except ValueError as error:  # a name that no certificate can have
                socket.close()
                self._abort(f"TLS: {error}")
                return
        self._open(socket, tls)
        if tls is not None:
            tls.start()
            self._write_raw(tls.take_output())
        self._start_timer(options.connect_timeout, self._never_spoke)
        self._greet()

    def _greet(self) -> None:
        raise NotImplementedError

    def _never_spoke(self) -> None:
        self._abort("connected, but no answer")

    def _serve(self) -> None:
        """Enter SERVING, until the connection's age says otherwise."""
        self.stage = Stage.SERVING
        max_age = self._board.options.max_age
        if max_age:
            self._start_timer(max_age * random.uniform(0.8, 1.2), self.retire)
        else:
            self._stop_timer()

    def _post(self, line: bytes) -> int:
        """Put a line into this turn's batch; returns where it ends in all output."""
        if not self._batch:
            self._reactor.loop.run_callback(self._flush)
        self._batch.append(line)
        self._queued += len(line)
        return self._queued

    def _flush(self) -> None:
        batch = self._batch
        if not batch or self.state != State.OPEN:
            return
        data = batch[0] if len(batch) == 1 else b"".join(batch)
        batch.clear()
        self._handed_on = self._queued
        self._write(data)

    def was_sent(self, call: Call) -> bool:
        """The kernel has taken the whole line, so the server may have read it."""
        # What TLS writes has other offsets: there, a line counts as sent a little early.
        sent = self.bytes_written if self._tls is None else self._handed_on
        return call._mark <= sent

    def _take(self, call: Call) -> None:
        call._channel = None
        self.outstanding -= 1

    def _close_if_done(self) -> None:
        if self.stage == Stage.RETIRED and not self.outstanding:
            self._close("retired")

    def _ended(self) -> None:
        self._abort("closed by the peer")

    def _closed(self, reason: str) -> None:
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        self._stop_timer()
        stage, self.stage = self.stage, Stage.GONE
        self._endpoint.lost(self, stage, reason)
        if self.outstanding:
            self._board.channel_lost(self, reason)
        log.debug("%r ended: %s", self, reason)

    def _start_timer(self, seconds: float, function: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._reactor.loop.timer(seconds)
        self._timer.start(function, update=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class RpcChannel(Channel):
    """Many calls at once, told apart by their ids.

    A new channel has to answer a ping before it gets calls, so none is lost to a connection that
    was only ever made with a listen queue or a load balancer.
    """

    __slots__ = ()

    def put(self, call: Call) -> None:
        call._channel = self
        self.outstanding += 1
        wants_progress = call._on_progress is not None
        line = encode_rpc(call.id, call.function, call._args, call._time_left(), wants_progress)
        call._mark = self._post(line)

    def forget(self, call: Call) -> None:
        self._take(call)
        self._post(encode_cancel(call.id))
        self._close_if_done()

    def doubt(self) -> None:
        """Ask whether the peer lives, and give it no new calls until it answers."""
        if self.stage == Stage.SERVING:
            self._endpoint.withdrew(self)
            self.stage = Stage.ASIDE
            self._post(encode_ping())
            self._still_silent()

    def _still_silent(self) -> None:
        # Its calls keep their chance: the peer may be busy with one of them.
        if self.outstanding:
            self._start_timer(self._board.options.connect_timeout, self._still_silent)
        else:
            self._start_timer(self._board.options.connect_timeout, self._never_spoke)

    def _greet(self) -> None:
        self._post(encode_ping())

    def _received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        calls = self._board.calls
        done: list[Call] = []
        reporting: list[Call] = []
        failure = ""
        for frame in self._decoder.feed(data):
            try:
                message = loads(frame)
            except ProtocolError as error:
                failure = f"not a JSON-RPC peer: {error.message}"
                break
            id = message.get("id") if type(message) is dict else None
            call = calls.get(id) if type(id) is int else None
            if call is None or call._channel is not self:
                self._take_other(message, reporting)
            elif "result" in message:
                call._result = message["result"]
                call.done = True
                call._channel = None
                self.outstanding -= 1
                del calls[call.id]
                done.append(call)
            elif "error" in message:
                self._take_error(call, TaskError.from_dict(message["error"]))
        if self.stage != Stage.SERVING and not failure:
            self._heard()
        if done and self._endpoint.failures:
            self._endpoint.answered()
        for call in reporting:
            call._start_reporting()
        for call in done:
            call._announce()
        if self._decoder.failed:
            failure = self._decoder.error().message
        if failure:
            self._abort(failure)

    def _heard(self) -> None:
        if self.stage == Stage.RETIRED:
            self._close_if_done()
        elif self.stage in (Stage.OPENING, Stage.ASIDE):
            self._serve()
            self._endpoint.joined(self)

    def _take_error(self, call: Call, error: TaskError) -> None:
        self._take(call)
        if type(error) is Draining:
            self.retire()
            self._endpoint.failed(error.message)
            self._board.move(call, error)
        else:
            self._board.fail(call, error)

    def _take_other(self, message: Any, reporting: list[Call]) -> None:
        """Whatever answers no call: a notification, or an answer that came too late."""
        if type(message) is not dict:
            log.warning("%r: ignored %.200r", self, message)
            return
        method, params = message.get("method"), message.get("params")
        if method == "gtask.goaway":
            self._endpoint.left_at = monotonic()
            if self.stage == Stage.OPENING:
                self._abort("the server is shutting down")
            else:
                self.retire()
        elif method == "gtask.progress" and type(params) is dict:
            id = params.get("id")
            call = self._board.calls.get(id) if type(id) is int else None
            if call is not None and call._channel is self and call._on_progress is not None:
                reporting.append(call)
                call._report(params.get("done"), params.get("total"), params.get("note"))
        elif message.get("id") is None and "error" in message:
            log.error("%r: the server answers %.500r", self, message["error"])


class BareChannel(Channel):
    """One call after the other: nothing but their order tells bare answers apart."""

    __slots__ = ("_call",)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._call: Call | None = None

    def put(self, call: Call) -> None:
        call._channel = self
        self._call = call
        self.outstanding = 1
        self._board.channels.remove(self)  # until the answer
        call._mark = self._post(encode_bare(call.function, call._args, call._time_left()))

    def forget(self, call: Call) -> None:
        # Its answer may still come, and would be taken for the next one's.
        self._take(call)
        self._abort("an answer that nobody waits for")

    def doubt(self) -> None:
        """Have the endpoint show that it lives, after a pause."""
        self._endpoint.failed("no answer")

    def _greet(self) -> None:
        self._serve()  # nothing that every server of bare tasks would answer
        self._endpoint.joined(self)

    def _received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        for frame in self._decoder.feed(data):
            call, self._call = self._call, None
            if call is None:
                self._abort("an answer to no call")
                return
            self._take(call)
            self._take_answer(call, frame)
        if self._decoder.failed:
            self._abort(self._decoder.error().message)

    def _take_answer(self, call: Call, frame: bytes) -> None:
        try:
            answer = loads(frame)
        except ProtocolError as error:
            self._board.fail(call, InternalError(f"the answer is not JSON: {error.message}"))
        else:
            if type(answer) is dict and _is_error(answer.get("error")):
                self._board.fail(call, TaskError.from_dict(answer["error"]))
            else:
                self._board.finish(call, answer, None)
        self._endpoint.answered()
        if self.stage == Stage.RETIRED:
            self._close_if_done()
        elif not self._board.options.keep_connections:
            self.retire()
        elif self.stage == Stage.SERVING:
            self._board.channels.append(self)
            self._board.serve()


def _is_error(error: Any) -> bool:
    return type(error) is dict and type(error.get("code")) is int and "message" in error
