"""`PacedConnection`: how fast one peer is read and answered, and when its connection ends.

Frames that were read wait in an inbox, and the socket is not read on before that is empty. Replies
that are made while one read is worked off are corked: they go out in one send. Bare calls, whose
answers nothing but their order tells apart, hold back what comes behind them.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from ..address import format_address
from ..net.poller import PolledStream, Poller
from ..net.stream import OPEN, State
from ..protocols.messages import BARE, notification, protocol_error_reply
from ..protocols.text import TextDecoder
from .engine import Engine, native_thread_id
from .execution import Execution
from .ready import ReadyStream

MAX_OUTSTANDING: Final = 1000  # blocked or waiting calls of one connection; past it, it is not read

_EMPTY: Final[list[bytes]] = []  # never added to


class PacedConnection(ReadyStream):
    """A peer's frames on their way in, and its replies on their way out."""

    __slots__ = (
        "_address",
        "_bare",
        "_by_id",
        "_decoder",
        "_has_ended",
        "_inbox",
        "_last_words",
        "_outstanding",
        "_replies",
        "_speaks_rpc",
        "engine",
    )

    def __init__(self, engine: Engine, poller: Poller, address: Any) -> None:
        ReadyStream.__init__(self, engine.reactor, poller)
        self.engine = engine
        self._address = address
        self._decoder = TextDecoder(engine.max_frame_bytes)
        self._inbox: list[bytes] = _EMPTY  # frames that were not taken up yet, the first one last
        self._bare: Execution | None = None  # the bare call that holds back what comes behind it
        self._by_id: dict[Any, Execution] | None = None  # outstanding calls that can be cancelled
        self._outstanding = 0  # calls that have blocked or wait for a turn
        self._replies: list[bytes] = []  # those that are corked
        self._last_words = b""  # the reply to a frame that was too long
        self._has_ended = False  # the peer sends no more
        self._speaks_rpc = False

    def __repr__(self) -> str:
        return f"<TaskConnection {self.peer} {State(self.state).name} {self._outstanding}>"

    @property
    def peer(self) -> str:
        return format_address(self._address) or "unix"

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
        if self._inbox or (self._outstanding and self.is_held_back()):
            self._inbox = frames + self._inbox
            self._set_pace()
        elif frames:
            self._inbox = frames
            self.engine.ready.put(self)
        if self._decoder.failed and not self._last_words:
            self._last_words = protocol_error_reply(self._decoder.error())
            self._set_pace()

    # -- calls that are not answered at once --------------------------------------------------

    def hold(self, call: Execution) -> None:
        """The call is not answered at once: count it, and make it findable by its id."""
        if call.is_outstanding or call.is_answered:
            return
        call.is_outstanding = True
        self._outstanding += 1
        if call.dialect == BARE:
            self._bare = call
        elif call.id is not None:
            if self._by_id is None:
                self._by_id = {}
            self._by_id[call.id] = call

    def is_held_back(self) -> bool:
        """No frame is to be taken up before a call has been answered.

        Where each frame passes, `_outstanding` is looked at first: it is mostly 0, and that is
        no call.
        """
        return self._bare is not None or self._outstanding >= MAX_OUTSTANDING

    def find(self, id: str | int) -> Execution | None:
        """The call of that id, if it waits or has blocked."""
        return self._by_id.get(id) if self._by_id is not None else None

    # -- replies out --------------------------------------------------------------------------

    def answer(self, call: Execution, reply: bytes) -> None:
        """Give `call` its one answer."""
        call.is_answered = True
        if call.is_outstanding:
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
            whole = call.batch.add(None if call.is_notification else reply)
            if whole is not None:
                self.reply(whole)
        elif not call.is_notification:
            self.reply(reply)

    def reply(self, line: bytes) -> None:
        """Send a line, or keep it for the send that is to come."""
        if self.state is not OPEN:
            return
        if not self.corked_since:
            self._write(line + b"\n")
        else:
            self._replies.append(line)

    def send_replies(self) -> None:
        """Send what was collected."""
        replies = self._replies
        if len(replies) == 1:
            data = replies.pop() + b"\n"
        else:
            replies.append(b"")
            data = b"\n".join(replies)
            replies.clear()
        if self.state is OPEN:
            self._write(data)

    def send_progress(self, line: bytes) -> None:
        """Send a progress notification, from any native thread.

        It is news, not data: it is dropped while the peer reads too slowly.
        """
        if native_thread_id() != self.engine.thread:  # a `blocking` task's
            self._reactor.loop.run_callback_threadsafe(self.send_progress, line)
        elif self._buffered < self.engine.max_send_buffer_bytes:
            self.reply(line)
            if self._replies:
                self.send_replies()  # it is news now, not when the task has ended or blocks

    def after_fork_in_child(self) -> None:
        PolledStream.after_fork_in_child(self)
        self._inbox.clear()
        self._replies.clear()

    # -- pace, and the end --------------------------------------------------------------------

    def end_work(self) -> None:
        """Send the replies, and see how to go on."""
        self.corked_since = 0.0
        if self._replies:
            self.send_replies()
        if (
            self._inbox
            or self._outstanding
            or self._is_deaf
            or self._has_ended
            or self.engine.is_draining
        ):
            self._set_pace()
        elif self._output is not None and len(self._output) > self.engine.max_send_buffer_bytes:
            self._pause()

    def _set_pace(self) -> None:
        """Work on, read on, hold back or close, as things stand now. Hub only."""
        if self.state is not OPEN or self.corked_since:
            return
        if self.is_held_back():
            if self._inbox:
                self._pause()
        elif self._inbox:
            self._pause()
            self.engine.ready.postpone(self)
        elif self._last_words or self._has_ended:
            self._end_if_done()
        elif self._buffered > self.engine.max_send_buffer_bytes:
            self._pause()
        else:
            self._resume()
            if self.engine.is_draining:
                self._end_if_done()

    def _flushed(self) -> None:
        self._set_pace()

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
        """Close a connection without calls that has said nothing after `since`."""
        if self._outstanding == 0 and not self._inbox and self.last_active < since:
            self._close("draining" if self.engine.is_draining else "idle for too long")

    def _ended(self) -> None:
        # The peer has closed its half: what it asked for before is still answered.
        self._has_ended = True
        if not (self._outstanding or self._inbox or self._output or self._last_words):
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
        elif self.engine.is_draining and not self._speaks_rpc:
            # Between two calls: the one answered last was read after the drain began.
            self._close("draining", linger=True)

    def _closed(self, reason: str) -> None:
        self._inbox = _EMPTY
        self._by_id = None
        self.engine.connections.discard(self)
        self.engine.stats.closed(self.bytes_read, self.bytes_written)
