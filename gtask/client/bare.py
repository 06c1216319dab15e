"""`BareConnection`: the page's dialect, one call after the other.

Nothing but their order tells bare answers apart, so an answer that comes too late, or twice, costs
the connection.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, ClassVar

from ..errors import InternalError, ProtocolError, TaskError
from ..protocols.jsontext import loads
from ..protocols.requests import encode_bare
from .calls import Call
from .connection import DRAINING, Answer, ClientConnection


class BareConnection(ClientConnection):
    """A connection to a server of bare tasks, such as a Workerman worker."""

    __slots__ = ()

    capacity: ClassVar[float] = 1

    def put(self, call: Call) -> None:
        self.calls[call.id] = call
        self.endpoint.load += 1
        call._mark = self._post(encode_bare(call.function, call._args, call._time_left()))

    def forget(self, call: Call) -> None:
        # Its answer may still come, and would be taken for the next one's.
        del self.calls[call.id]
        self.endpoint.load -= 1
        self._abort("an answer that nobody waits for")

    def probe(self) -> bool:
        return False  # no question is answered by every server of bare tasks

    def _greet(self) -> None:
        self._become_ready()

    def _received(self, data: bytes) -> None:
        self.heard_at = monotonic()
        frames = self._decoder.feed(data)
        if frames:
            self._take_answer(frames)
        if self._decoder.failed:
            self._abort(self._decoder.error().message)

    def _take_answer(self, frames: list[bytes]) -> None:
        if not self._has_asked():
            self._abort("an answer to no call")
            return
        self._has_served = True
        call = self.calls.popitem()[1]
        self.endpoint.load -= 1
        answer = _answer(call, frames[0])
        if not self._options.keep_connections:
            self._enter(DRAINING)  # so that its owner puts no other call here
        self._owner.calls_answered(self, [answer])
        self._close_if_done()
        if len(frames) > 1:
            self._abort("an answer to no call")
        if answer[2] is None:
            call._announce()


def _answer(call: Call, frame: bytes) -> Answer:
    try:
        answer = loads(frame)
    except ProtocolError as error:
        return call, None, InternalError(f"the answer is not JSON: {error.message}")
    if type(answer) is dict and _is_error(answer.get("error")):
        return call, None, TaskError.from_dict(answer["error"])
    return call, answer, None


def _is_error(error: Any) -> bool:
    return type(error) is dict and type(error.get("code")) is int and "message" in error
