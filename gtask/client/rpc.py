"""`RpcConnection`: JSON-RPC; many calls at once, told apart by their ids."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from ..errors import ProtocolError, TaskError
from ..net.reactor import Reactor
from ..protocols.jsontext import loads
from ..protocols.requests import encode_cancel, encode_ping, encode_rpc
from .calls import Call
from .connection import DRAINING, OPENING, PROBING, READY, Answer, ClientConnection, ConnectionOwner
from .endpoint import Endpoint
from .options import Options

log = logging.getLogger("gtask.client")


class RpcConnection(ClientConnection):
    """A connection to a server of JSON-RPC 2.0, one message a line.

    A new one has to answer a ping before it gets calls, so none is lost to a connection that was
    only ever made with a listen queue or a load balancer.
    """

    __slots__ = ("_is_sent_away",)

    def __init__(
        self, reactor: Reactor, owner: ConnectionOwner, endpoint: Endpoint, options: Options
    ) -> None:
        super().__init__(reactor, owner, endpoint, options)
        self._is_sent_away = False  # the server has said goaway

    def put(self, call: Call) -> None:
        self.calls[call.id] = call
        wants_progress = call._on_progress is not None
        line = encode_rpc(call.id, call.function, call._args, call._time_left(), wants_progress)
        call._mark = self._post(line)

    def forget(self, call: Call) -> None:
        del self.calls[call.id]
        self._post(encode_cancel(call.id))
        self._close_if_done()

    def probe(self) -> bool:
        """Ask by a ping, and take no new calls until the peer speaks."""
        if self.stage is READY:
            self._enter(PROBING)
            self._greet()
            self._still_silent()
            self._owner.connection_unready(self)
        return True

    def _still_silent(self) -> None:
        # Its calls keep their chance: the peer may be busy with one of them.
        silent = self._still_silent if self.calls else self._never_spoke
        self._start_timer(self._options.connect_timeout, silent)

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
        if answers:
            self._owner.calls_answered(self, answers)
        if self.stage is not READY and not failure:
            self._heard()
        if self._is_sent_away:
            self.drain()
        for call in reporting:
            call._start_reporting()
        for call, _, error in answers:
            if error is None:
                call._announce()
        if self._decoder.failed:
            failure = self._decoder.error().message
        if failure:
            self._abort(failure)

    def _read(self, data: bytes, answers: list[Answer], reporting: list[Call]) -> None:
        """Take what was received apart.

        Args:
            answers: gets the calls that are answered.
            reporting: gets the calls that have progress to tell of.
        """
        calls = self.calls
        for frame in self._decoder.feed(data):
            message = loads(frame)
            id = message.get("id") if type(message) is dict else None
            call = calls.get(id) if type(id) is int else None
            if call is None:
                self._read_other(message, reporting)
            elif "result" in message:
                del calls[call.id]
                answers.append((call, message["result"], None))
            elif "error" in message:
                del calls[call.id]
                answers.append((call, None, TaskError.from_dict(message["error"])))

    def _read_other(self, message: Any, reporting: list[Call]) -> None:
        """Whatever answers no call: a notification, or an answer that came too late."""
        if type(message) is not dict:
            log.warning("%r: ignored %.200r", self, message)
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
            log.error("%r: the server answers %.500r", self, message["error"])

    def _heard(self) -> None:
        """The peer lives, whatever it has said."""
        if self.stage is DRAINING:
            self._close_if_done()
        elif self.stage in (OPENING, PROBING) and not self._is_sent_away:
            self._has_served = True
            self._become_ready()
        elif self.stage is OPENING:
            self._abort("the server is shutting down")
