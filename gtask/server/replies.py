"""`ReplyingStream`: one peer's replies on their way out, none longer than a frame.

Replies that are made while one read is worked off are corked: they go out in one send. Those of a
batch wait for each other.
"""

from __future__ import annotations

from typing import Any, Final

from ..address import format_address
from ..errors import InternalError
from ..net.poller import Poller
from ..net.stream import OPEN
from ..protocols.messages import Call
from .engine import Engine, native_thread_id
from .execution import Batch, log_error
from .ready import ReadyStream

CORK_BYTES: Final = 65536  # what is collected for one send


class ReplyingStream(ReadyStream):
    """What is sent to a peer."""

    __slots__ = ("_address", "_batch_bytes", "_replies", "_reply_bytes", "engine")

    def __init__(self, engine: Engine, poller: Poller, address: Any) -> None:
        ReadyStream.__init__(self, engine.reactor, poller)
        self.engine = engine
        self._address = address
        self._replies: list[bytes] = []  # those that are corked
        self._reply_bytes = 0  # of those
        self._batch_bytes = 0  # replies that wait for the others of their batch

    @property
    def peer(self) -> str:
        """The peer's address, for people."""
        return format_address(self._address) or "unix"

    def is_congested(self) -> bool:
        """So much waits to be sent that nothing more is to be started."""
        output = self._output
        return output is not None and output.size > self.engine.max_send_buffer_bytes

    def reply(self, line: bytes) -> None:
        """Send a line, or keep it for the send that is to come."""
        if self.state is not OPEN:
            return
        if not self.corked_since:
            self._write(line + b"\n")
            return
        self._replies.append(line)
        self._reply_bytes += len(line)
        if self._reply_bytes > CORK_BYTES:
            self.send_replies()

    def send_replies(self) -> None:
        """Send what was collected."""
        replies = self._replies
        self._reply_bytes = 0
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

        It is news, not data: it is dropped while the peer reads too slowly, or if it is no frame.
        """
        engine = self.engine
        if native_thread_id() != engine.thread:  # a `blocking` task's
            engine.reports.send_from_thread(self, line)
        elif len(line) <= engine.max_frame_bytes and self._buffered < engine.max_send_buffer_bytes:
            self.reply(line)
            if self._replies:
                self.send_replies()  # it is news now, not when the task has ended or blocks

    # -- none is too long ---------------------------------------------------------------------

    def fit(self, call: Call, reply: bytes) -> bytes:
        """The reply, or an error if that is too long for a frame."""
        limit = self.engine.max_frame_bytes
        return reply if len(reply) <= limit else self._shorten(call, reply, limit)

    def add_to_batch(self, batch: Batch, call: Call, reply: bytes) -> None:
        """Keep the call's reply until all of the batch are there."""
        before = batch.size
        if call.is_notification:
            whole = batch.add(None)
        else:
            room = batch.room()
            whole = batch.add(reply if len(reply) <= room else self._shorten(call, reply, room))
        more = batch.size - before if batch.missing else -before
        self._batch_bytes += more
        self.engine.turns.pending_bytes += more
        if whole is not None:
            self.reply(whole)

    def _shorten(self, call: Call, reply: bytes, limit: int) -> bytes:
        self.engine.stats.failed()
        size = len(reply)
        what = f"the answer has {size} bytes, where there is room for {limit}"
        error = InternalError(what, {"bytes": size})
        short = call.error(error)
        if len(short) > self.engine.max_frame_bytes:
            call.id = None  # it is the id that is too long
            short = call.error(error)
        log_error("task %r: %s", call, error.message)
        return short
