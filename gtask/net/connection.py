"""`TcpConnection`: a text connection with Workerman's callbacks.

The hub queues events; one greenlet at a time takes them from the queue and calls the user. So one
connection's callbacks run in order and never two at once, and may block without stopping others.
"""

from __future__ import annotations

import itertools
from collections import deque
from types import SimpleNamespace
from typing import Any

from gevent.event import Event
from greenlet import GreenletExit

from ..address import format_address
from ..callbacks import Callback
from ..compiled import mypyc_attr
from ..errors import ProtocolError
from ..logs.loggers import get_logger
from ..protocols.text import MAX_FRAME_BYTES, TextDecoder, encode_frame
from .context import ContextAttribute
from .reactor import Reactor, current_reactor
from .stream import Stream, StreamState

log = get_logger("gtask.connection")

CONNECT_FAILED = 1
SEND_FAILED = 2
TLS_FAILED = 3
MAX_SEND_BUFFER_BYTES = 1024 * 1024
BUFFER_EVENTS = ("on_buffer_full", "on_buffer_drain")

# With `memoryview` in it, which it does not know, mypyc leaves the check to `_encode`.
Data = str | bytes | bytearray | memoryview
_ids = itertools.count(1)


@mypyc_attr(allow_interpreted_subclasses=True)
class TcpConnection(Stream):
    """One text connection; a worker makes one for each peer it accepts.

    Attributes:
        id: unique in this process.
        context: free for the user, an empty namespace at first.
        on_connect, on_message, on_close, on_error, on_buffer_full, on_buffer_drain: the
            receivers of events (docs/callbacks.md), or None.
        max_send_buffer_bytes: what may wait to be sent; a `send` beyond it is refused.
    """

    __slots__ = (
        "_busy",
        "_context",
        "_decoder",
        "_events",
        "_room",
        "_stalled",
        "_user_paused",
        "id",
        "max_send_buffer_bytes",
        "on_buffer_drain",
        "on_buffer_full",
        "on_close",
        "on_connect",
        "on_error",
        "on_message",
        "remote_address",
    )

    def __init__(
        self,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_send_buffer_bytes: int = MAX_SEND_BUFFER_BYTES,
        reactor: Reactor | None = None,
    ) -> None:
        super().__init__(reactor or current_reactor())
        self.id = next(_ids)
        self.on_connect: Callback = None
        self.on_message: Callback = None
        self.on_close: Callback = None
        self.on_error: Callback = None
        self.on_buffer_full: Callback = None
        self.on_buffer_drain: Callback = None
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.remote_address = ""
        self._context: Any = None
        self._decoder: Any = TextDecoder(max_frame_bytes)
        self._events: deque[tuple[str, tuple[Any, ...]]] = deque()
        self._busy = False  # a greenlet is delivering events
        self._stalled = False  # the reader is stopped until that greenlet is through
        self._user_paused = False
        self._room: Event | None = None  # set when the full send buffer is empty again, or we end

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.remote_address} {StreamState(self.state).name}>"

    @ContextAttribute
    def context(self) -> SimpleNamespace:
        return SimpleNamespace()

    @property
    def local_address(self) -> str:
        """This end, as ``host:port``; empty once closed."""
        return format_address(self._socket.getsockname()) if self._socket is not None else ""

    # -- the user's verbs ---------------------------------------------------------------------

    def send(self, data: Data) -> bool:
        """Send one frame; never blocks.

        Returns:
            True if it is on its way. False if it was dropped: the connection is closed, or the
            send buffer is full; the latter is also told to `on_error` with code 2.

        Raises:
            ValueError: the data holds a line feed, so the peer would read two frames.
            TypeError: neither str nor bytes.
        """
        if self.state != StreamState.OPEN:
            return False
        if self._is_full:
            self._emit("on_error", SEND_FAILED, "send buffer full, message dropped")
            return False
        self._put(data)
        if self._is_full and self.on_buffer_full is not None:
            self._emit_soon("on_buffer_full")
        return True

    def close(self, data: Data | None = None) -> None:
        """Send `data`, if any, and close when everything is sent."""
        if self.state == StreamState.OPEN:
            if data is not None:
                self._put(data)
            self._events.clear()  # what the peer has said is not heard any more
            self._close("closed here", linger=self._lingers)

    def destroy(self) -> None:
        """Close at once; what was not sent yet is lost."""
        if self.state != StreamState.CLOSED:
            self._events.clear()
            self._abort("destroyed here")

    def pause_recv(self) -> None:
        """No more messages until `resume_recv`; what is not read yet, the kernel holds back."""
        self._user_paused = True
        self._pause()

    def resume_recv(self) -> None:
        """Go on after `pause_recv`."""
        self._user_paused = False
        if self._events:
            self._wake()
        if not self._stalled:
            self._resume()

    def pipe(self, other: TcpConnection) -> None:
        """Send each message on to `other`, at the pace `other` takes them; close with it."""

        def forward(_source: TcpConnection, data: Data) -> None:
            other._wait_room()  # and meanwhile nothing more is read here
            other.send(data)

        def ended(_source: TcpConnection) -> None:
            other.close()

        self.on_message, self.on_close = forward, ended

    @property
    def _is_full(self) -> bool:
        return self._buffered >= self.max_send_buffer_bytes

    def _wait_room(self) -> None:
        """Wait until the send buffer, if it is full, is empty; or until there is no need to."""
        while self._is_full:
            if self._room is None:
                self._room = Event()
            self._room.wait()

    def _tell_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None

    def _give_up(self, reason: str, is_full: bool) -> None:
        if self._is_secured():
            self._abort(reason)
            log.warning("%r: %s", self, reason)
        else:
            self._insecure(reason)

    def after_fork_in_child(self) -> None:
        super().after_fork_in_child()
        self._events.clear()

    # -- events -------------------------------------------------------------------------------

    _lingers = True

    def _put(self, data: Data) -> None:
        self._write(_encode(data))

    def _accept(self, socket: Any, remote_address: str, tls: Any = None) -> None:
        """Start as the accepted end of `socket`."""
        self.remote_address = remote_address
        self._open(socket, tls)
        if self._is_secured():
            self._emit("on_connect")
        else:
            self._reactor.debts.owes_handshake(self)

    def _secured(self) -> None:
        self._emit("on_connect")

    def _insecure(self, reason: str) -> None:
        if self.state != StreamState.CLOSED:
            code = TLS_FAILED if self._is_secured() else CONNECT_FAILED
            self._events.append(("on_error", (code, reason)))
            self._abort(reason)
            log.warning("%r: %s", self, reason)

    def _received(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            self._events.append(("on_message", (frame.decode("utf-8", "surrogateescape"),)))
        if self._decoder.failed:
            self._pause()
            self._events.append(("_too_long", ()))
        if self._events:
            self._wake()
            if self._busy and not self._stalled:
                self._stalled = True  # back-pressure: read on when these are delivered
                self._pause()

    def _ended(self) -> None:
        self._events.append(("_peer_ended", ()))
        self._wake()

    def _flushed(self) -> None:
        self._tell_room()
        if self.on_buffer_drain is not None:
            self._emit_soon("on_buffer_drain")

    def _closed(self, reason: str) -> None:
        self._tell_room()
        self._user_paused = self._stalled = False
        errors = [event for event in self._events if event[0] == "on_error"]
        self._events.clear()  # in place: a greenlet may be delivering them
        self._events.extend(errors)
        self._emit("on_close")

    def _peer_ended(self) -> None:
        # The messages before the end have been delivered: their answers are in the buffer.
        if self.state == StreamState.OPEN:
            self._close("closed by the peer")

    def _too_long(self) -> None:
        error = self._decoder.error()
        self._close(error.message, linger=True)
        log.warning("%r: %s", self, error)

    def _crashed(self, event: str) -> None:
        self._abort(f"{event} failed")

    def _emit(self, event: str, *args: Any) -> None:
        self._events.append((event, args))
        self._wake()

    def _emit_soon(self, event: str) -> None:
        """Before the messages that wait: what is answered to them may depend on it."""
        position = 0
        while position < len(self._events) and self._events[position][0] in BUFFER_EVENTS:
            position += 1
        self._events.insert(position, (event, ()))
        self._wake()

    def _wake(self) -> None:
        if not self._busy:
            self._busy = True
            self._reactor.start(self._deliver)

    def _next(self) -> int:
        """Where in the queue the next event is that may be delivered, or -1.

        The first, unless the user has paused: messages, and what comes of them, wait then, but
        `on_buffer_drain`, which often is what ends the pause, does not.
        """
        if not self._user_paused or self.state == StreamState.CLOSED:
            return 0 if self._events else -1
        for position, (event, _) in enumerate(self._events):
            if event != "on_message" and event[0] != "_":
                return position
        return -1

    def _deliver(self) -> None:
        """Call the user for each queued event; runs in a greenlet of its own."""
        events = self._events  # the same as long as this connection is there
        try:
            while (position := self._next()) >= 0:
                event, args = events[position]
                del events[position]
                if event[0] == "_":
                    getattr(self, event)()
                    continue
                callback = getattr(self, event)
                if callback is not None:
                    try:
                        callback(self, *args)
                    except GreenletExit:
                        raise
                    except BaseException as error:  # the edge to user code; not only Exceptions
                        self._crashed(event)
                        log.error("%r: %s failed", self, event, exc_info=error)
        finally:
            self._busy = False
            if self._next() >= 0:  # killed by somebody in the middle of a callback
                self._wake()
            if self._stalled:
                self._stalled = False
                if not self._user_paused and not self._decoder.failed:
                    self._resume()


def _encode(data: Data) -> bytes:
    if isinstance(data, str):
        data = data.encode("utf-8", "surrogateescape")
    elif not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"send takes str or bytes, not {type(data).__name__}")
    try:
        return encode_frame(bytes(data))
    except ProtocolError as error:
        raise ValueError(error.message) from None
