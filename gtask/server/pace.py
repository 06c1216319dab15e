"""`PacedConnection`: how fast one peer is read and answered, and when its connection ends.

Frames that were read wait in an inbox, and the socket is not read on before that is empty. Bare
calls, whose answers nothing but their order tells apart, hold back what comes behind them; so do
too many calls, too large ones, and answers that the peer does not take.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from ..errors import INVALID_REQUEST, OVERLOADED, ProtocolError
from ..logs.loggers import get_logger
from ..net.poller import Poller
from ..net.stream import OPEN, StreamState
from ..protocols.messages import BARE, notification, protocol_error_reply
from ..protocols.text import TextDecoder
from .engine import Engine
from .execution import Execution
from .replies import ReplyingStream

log = get_logger("gtask.connection")

MAX_OUTSTANDING: Final = 1000  # blocked or waiting calls of one connection; past it, it is not read
SHARES: Final = 4  # one connection may have a quarter of what the arguments of all may take

_EMPTY: Final[list[bytes]] = []  # never added to


class PacedConnection(ReplyingStream):
    """A peer's frames on their way in, and its replies on their way out."""

    __slots__ = (
        "_bare",
        "_by_id",
        "_decoder",
        "_has_ended",
        "_inbox",
        "_inbox_bytes",
        "_is_fresh",
        "_kept_bytes",
        "_last_words",
        "_outstanding",
        "_pending_bytes",
        "_speaks_rpc",
    )

    def __init__(self, engine: Engine, poller: Poller, address: Any) -> None:
        ReplyingStream.__init__(self, engine, poller, address)
        self._decoder = TextDecoder(engine.max_frame_bytes)
        self._inbox: list[bytes] = _EMPTY  # frames that were not taken up yet, the first one last
        self._inbox_bytes = 0  # what those have at the most
        self._kept_bytes = 0  # of frames, as the reactor's debts count them
        self._bare: Execution | None = None  # the bare call that holds back what comes behind it
        self._by_id: dict[Any, Execution] | None = None  # outstanding calls that can be cancelled
        self._outstanding = 0  # calls that have blocked or wait for a turn
        self._pending_bytes = 0  # what the arguments of those take
        self._last_words = b""  # the reply to a frame that was too long
        self._has_ended = False  # the peer sends no more
        self._speaks_rpc = False
        self._is_fresh = True  # nothing was answered yet

    def __repr__(self) -> str:
        return f"<TaskConnection {self.peer} {StreamState(self.state).name} {self._outstanding}>"

    @property
    def is_stopping(self) -> bool:
        """The process is to end."""
        return self.engine.is_draining

    def report(self) -> dict[str, Any]:
        """What the operator's list of connections shows."""
        return {
            "peer": self.peer,
            "protocol": "json-rpc" if self._speaks_rpc else "bare",
            "outstanding": self._outstanding,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "send_buffer": self._buffered,
            "idle_seconds": round(monotonic() - self.last_active, 3),
        }

    # -- frames in ----------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        frames = self._decoder.feed(data)
        frames.reverse()  # they are popped from the end
        may_be_held = self._outstanding or self._output is not None or self._pending_bytes
        if self._inbox or (may_be_held and self.is_held_back()):
            self._inbox = frames + self._inbox
            self._inbox_bytes += len(data)
            self._set_pace()
        elif frames:
            self._inbox = frames
            self._inbox_bytes = len(data) + self._kept_bytes
            self.engine.ready.put(self)
        if self._kept_bytes or self._decoder.partial is not None:
            self._count_kept(bool(frames))
        if self._decoder.failed and not self._last_words:
            self._last_words = protocol_error_reply(self._decoder.error())
            self._set_pace()

    def _count_kept(self, is_new: bool) -> None:
        """Tell how much is kept of frames that are not whole, or not to be taken up now.

        Args:
            is_new: a frame has come whole since.
        """
        size = self._decoder.partial_bytes
        if self._inbox:
            size += self._inbox_bytes
        if size:
            self.last_active = monotonic()
        self._kept_bytes = size
        self._reactor.debts.owes_rest(self, size, is_new)

    # -- calls that are not answered at once --------------------------------------------------

    def hold(self, call: Execution) -> None:
        """The call is not answered at once: count it, and make it findable by its id."""
        if call.is_outstanding or call.is_answered:
            return
        call.is_outstanding = True
        self._outstanding += 1
        self._keep_arguments(call)
        if call.dialect == BARE:
            self._bare = call
        elif call.id is not None:
            if self._by_id is None:
                self._by_id = {}
            self._by_id[call.id] = call

    def _keep_arguments(self, call: Execution) -> None:
        call.is_kept = True
        self._pending_bytes += call.weight
        self.engine.turns.pending_bytes += call.weight

    def let_go(self, call: Execution) -> None:
        """The call's arguments are not needed any more."""
        if call.is_kept:
            call.is_kept = False
            self._pending_bytes -= call.weight
            self.engine.turns.pending_bytes -= call.weight
            if self._is_deaf and not self.corked_since:
                self._reactor.loop.run_callback(self._set_pace)

    def is_held_back(self) -> bool:
        """No frame is to be taken up before a call has been answered, or the answers taken.

        Where each frame passes, it is asked only while there are such calls or answers: mostly
        there are none, and that is no call.
        """
        return (
            self._bare is not None
            or self._outstanding >= MAX_OUTSTANDING
            or self._pending_bytes > self.engine.max_pending_bytes // SHARES
            or self._batch_bytes > self.engine.max_send_buffer_bytes
            or self.is_congested()
        )

    def run_waiting(self, call: Execution) -> None:
        """A turn has become free for the call, which waited for one."""
        raise NotImplementedError

    def find(self, id: str | int) -> Execution | None:
        """The call of that id, if it waits or has blocked."""
        return self._by_id.get(id) if self._by_id is not None else None

    # -- replies out --------------------------------------------------------------------------

    def answer(self, call: Execution, reply: bytes) -> None:
        """Give `call` its one answer."""
        call.is_answered = True
        if call.is_outstanding:
            self.last_active = monotonic()
            self._outstanding -= 1
            if call is self._bare:
                self._bare = None
            elif self._by_id is not None and self._by_id.get(call.id) is call:
                del self._by_id[call.id]
        self._deliver(call, reply)
        if not self.corked_since:
            self._reactor.loop.run_callback(self._set_pace)

    def answer_at_once(self, call: Execution, reply: bytes) -> None:
        """The same for a call that was never held."""
        call.is_answered = True
        self._deliver(call, reply)

    def _deliver(self, call: Execution, reply: bytes) -> None:
        if call.batch is not None:
            self.add_to_batch(call.batch, call, reply)
        elif not call.is_notification:
            self.reply(self.fit(call, reply))

    def after_fork_in_child(self) -> None:
        ReplyingStream.after_fork_in_child(self)
        self._inbox.clear()
        self._replies.clear()

    # -- pace, and the end --------------------------------------------------------------------

    def end_work(self) -> None:
        """Send the replies, and see how to go on."""
        self.corked_since = 0.0
        if self._replies:
            self.send_replies()
        if self._is_fresh:
            self._is_fresh = False
            self.engine.stats.answered()
        if (
            self._inbox
            or self._outstanding
            or self._is_deaf
            or self._has_ended
            or self._kept_bytes
            or self._output is not None
            or self.engine.is_draining
        ):
            self._set_pace()

    def _set_pace(self) -> None:
        """Work on, read on, hold back or close, as things stand now. Hub only."""
        if self.state is not OPEN or self.corked_since:
            return
        if (self._kept_bytes and not self._inbox) or (self._inbox and self.is_held_back()):
            self._count_kept(False)
        if self.is_held_back():
            if self._inbox or self._decoder.partial is not None or self.is_congested():
                self._pause()
        elif self._inbox:
            self._pause()
            self.engine.ready.postpone(self)
        elif self._last_words or self._has_ended:
            self._end_if_done()
        else:
            self._resume()
            if self.engine.is_draining:
                self._end_if_done()

    def _flushed(self) -> None:
        self.engine.turns.resume(self)
        self._set_pace()

    def _progressed(self) -> None:
        self.last_active = monotonic()

    def hear_rpc(self) -> None:
        """The peer turns out to speak JSON-RPC, so it understands a goaway it was not sent."""
        self._speaks_rpc = True
        if self.engine.is_draining:
            self.say_goaway()

    def say_goaway(self) -> None:
        """Tell a peer that speaks JSON-RPC to call elsewhere."""
        if self._speaks_rpc:
            self.reply(notification("gtask.goaway", {}))
        self.last_active = monotonic()

    def close_if_idle(self, since: float) -> None:
        """Close a connection without calls on which nothing has gone either way after `since`."""
        if self._outstanding or self._inbox or (self.engine.is_draining and self._is_receiving):
            return
        if self.last_active >= since or self._has_unread():
            return
        if self._output is None:
            self._close("draining" if self.engine.is_draining else "idle for too long")
        elif not self.engine.is_draining:  # then it has its time to take what it has asked for
            self._abort("idle for too long, with answers that it does not take")

    @property
    def _is_receiving(self) -> bool:
        """A call is on its way to us: a part of it has come."""
        return self._decoder.partial is not None or self._is_mid_record

    def _ended(self) -> None:
        # The peer has closed its half: what it asked for before is still answered.
        self._has_ended = True
        if not (self._outstanding or self._inbox or self._output is not None or self._last_words):
            self._abort("closed by the peer")
        else:
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._outstanding or self._inbox or self.corked_since or self.state is not OPEN:
            return
        if self._last_words:
            self._write(self._last_words + b"\n")
            self._close("frame too long", linger=True)
        elif self._has_ended:
            self._close("closed by the peer")
        elif self.engine.is_draining and not self._speaks_rpc and not self._is_receiving:
            # Between two calls: the one answered last was read after the drain began.
            self._close("draining", linger=True)

    def _must_take(self) -> bool:
        return True

    def _is_read(self) -> bool:
        return not self._is_deaf

    def _insecure(self, reason: str) -> None:
        self._abort(reason)
        log.warning("%s: %s", self.peer, reason)

    def _give_up(self, reason: str, is_full: bool) -> None:
        if self._output is not None or not self._is_secured():
            self._abort(reason)
        else:
            code = OVERLOADED if is_full else INVALID_REQUEST
            self._write(protocol_error_reply(ProtocolError(code, reason)) + b"\n")
            self._close(reason, linger=True)
        log.warning("%s: %s", self.peer, reason)

    def _closed(self, reason: str) -> None:
        self._inbox = _EMPTY
        self._by_id = None
        if self._kept_bytes:
            self._kept_bytes = 0
            self._decoder = TextDecoder(0)  # others may still refer to this connection
            self._reactor.debts.forget(self)
        if self._outstanding:
            self.engine.turns.resume(self)
        self.engine.connections.discard(self)
        was_fresh, self._is_fresh = self._is_fresh, False
        self.engine.stats.closed(self.bytes_read, self.bytes_written, was_fresh=was_fresh)
