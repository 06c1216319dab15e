"""`RpcConnection`: JSON-RPC; many calls at once, told apart by their ids."""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..errors import FrameTooLong, InternalError, ProtocolError, TaskError
from ..logs.loggers import get_logger
from ..net.reactor import Reactor
from ..protocols.jsontext import loads
from ..protocols.requests import encode_cancel, encode_ping, encode_rpc
from ..protocols.text import TextDecoder
from .calls import Call
from .connection import (
    DRAINING,
    MIN_LIFE_SECONDS,
    OPENING,
    PROBING,
    READY,
    Answer,
    ClientConnection,
    ConnectionOwner,
)
from .endpoint import Endpoint
from .options import Options
from .unreadable import ENDS, Skipper, id_of

log = get_logger("gtask.client")


class RpcConnection(ClientConnection):
    """A connection to a server of JSON-RPC 2.0, one message a line.

    A new one has to answer a ping before it gets calls, so none is lost to a connection that was
    only ever made with a listen queue or a load balancer.
    """

    __slots__ = ("_has_puzzled", "_is_sent_away", "_skipper")

    def __init__(
        self, reactor: Reactor, owner: ConnectionOwner, endpoint: Endpoint, options: Options
    ) -> None:
        super().__init__(reactor, owner, endpoint, options)
        self._is_sent_away = False  # the server has said goaway
        self._has_puzzled = False  # it has said something that is no answer, and that was logged
        self._skipper: Skipper | None = None  # while a frame that is too long comes in

    def put(self, call: Call) -> None:
        self.calls[call.id] = call
        self.endpoint.load += 1
        wants_progress = call._on_progress is not None
        line = encode_rpc(call.id, call.function, call._args, call._time_left(), wants_progress)
        call._mark = self._post(line)

    def forget(self, call: Call) -> None:
        del self.calls[call.id]
        self.endpoint.load -= 1
        self._post(encode_cancel(call.id))
        self._close_if_done()

    def probe(self) -> bool:
        """Ask by a ping, and take no new calls until the peer speaks."""
        if self.stage is READY:
            self._enter(PROBING)
            self._greet()
            self._start_timer(self._options.connect_timeout, self._never_spoke)
            self._owner.connection_unready(self)
        return True

    def _never_spoke(self) -> None:
        """No word in time. The peer may be busy, with a call of ours or of others."""
        if not self.calls and not self._owner.is_wanted(self):
            self._abort("connected, but no answer")
            return
        if self.stage is OPENING:
            self._enter(PROBING)
            self._owner.connection_silent(self)
        if self.stage is PROBING:
            self._start_timer(self._options.connect_timeout, self._never_spoke)

    def _greet(self) -> None:
        self._post(encode_ping())

    # -- receiving ------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        answers: list[Answer] = []
        reporting: list[Call] = []
        failure = ""
        try:
            self._read(data, answers, reporting)
        except ProtocolError as caught:
            failure = f"not a JSON-RPC peer: {caught.message}"
        except Exception as caught:  # the edge to a peer that may say anything
            failure = f"not a JSON-RPC peer: {type(caught).__name__}"
        if answers:
            self.endpoint.load -= len(answers)
            self._has_answered = True
            self._owner.calls_answered(self, answers)
        if self.stage is not READY and not failure:
            self._heard()
        if self._is_sent_away:
            self._leave()
        for call in reporting:
            call._start_reporting()
        for call, _, error in answers:
            if error is None:
                call._announce()
        if failure:
            self._abort(failure)

    def _leave(self) -> None:
        """The server has sent us away; if it always does so at once, that is a failure."""
        was_of_use = self._has_answered or self._has_asked()
        is_young = monotonic() - self._ready_at < MIN_LIFE_SECONDS
        if self.stage is READY and is_young and not was_of_use:
            self._owner.connection_useless(self, "the server sends its callers away")
        self.drain()

    def _read(self, data: bytes, answers: list[Answer], reporting: list[Call]) -> None:
        """Take what was received apart.

        Args:
            answers: gets the calls that are answered.
            reporting: gets the calls that have progress to tell of.
        """
        calls = self.calls
        if self._skipper is not None:
            data = self._skip(data, answers)
        frames = self._decoder.feed(data)
        for frame in frames:
            try:
                message = loads(frame)
            except ProtocolError as error:
                self._answer_unread(id_of(frame[:ENDS], frame[-ENDS:]), error, answers)
                continue
            id = message.get("id") if type(message) is dict else None
            call = calls.get(id) if type(id) is int else None
            if call is None:
                self._read_other(message, reporting)
            elif "result" in message:
                del calls[call.id]
                answers.append((call, message["result"], None))
            elif "error" in message:
                failure = TaskError.from_dict(message["error"])
                del calls[call.id]
                answers.append((call, None, failure))
        if self._decoder.failed:
            self._decoder = TextDecoder(self._options.max_frame_bytes)
            self._skipper = Skipper(self._options.max_frame_bytes)
            rest = data.split(b"\n", len(frames))[-1]
            self._read(rest, answers, reporting)

    def _skip(self, data: bytes, answers: list[Answer]) -> bytes:
        """Drop what belongs to a frame that is too long; returns what follows it.

        Raises:
            ProtocolError: it answers no call that can be told, or has no end.
        """
        assert self._skipper is not None
        rest = self._skipper.feed(data)
        if rest is None:
            return b""
        too_long = FrameTooLong(self._options.max_frame_bytes)
        self._answer_unread(self._skipper.id(), too_long, answers)
        self._skipper = None
        return rest

    def _answer_unread(self, id: int, problem: ProtocolError, answers: list[Answer]) -> None:
        """The answer to a call cannot be read: that ends the call, and nothing else.

        Raises:
            ProtocolError: the call cannot be told, so the connection cannot go on.
        """
        call = self.calls.pop(id, None)
        if call is None:
            raise problem
        message = f"the answer cannot be read: {problem.message}"
        answers.append((call, None, InternalError(message)))

    def _read_other(self, message: Any, reporting: list[Call]) -> None:
        """Whatever answers no call: a notification, or an answer that came too late."""
        if type(message) is not dict:
            self._puzzle("something that is no JSON-RPC message")
            return
        method, params = message.get("method"), message.get("params")
        if method == "gtask.goaway":
            self._is_sent_away = True
            self.endpoint.goaway_at = monotonic()
        elif method == "gtask.progress" and type(params) is dict:
            id = params.get("id")
            call = self.calls.get(id) if type(id) is int else None
            if call is not None and call._on_progress is not None:
                reporting.append(call)
                call._report(params.get("done"), params.get("total"), params.get("note"))
        elif message.get("id") is None and "error" in message:
            error = TaskError.from_dict(message["error"])
            self._puzzle(f"{error.code} {error.message[:500]!r} to nothing in particular")

    def _puzzle(self, what: str) -> None:
        """Log what makes no sense; once, as a peer may say it for ever."""
        if not self._has_puzzled:
            self._has_puzzled = True
            log.error("%r: the server answers %s", self, what)

    def _heard(self) -> None:
        """The peer lives, whatever it has said."""
        if self.stage is DRAINING:
            self._close_if_done()
        elif self.stage in (OPENING, PROBING) and not self._is_sent_away:
            self._has_served = True
            self._become_ready()
        elif self.stage is OPENING:
            self._abort("the server is shutting down")
