"""`WebSocketConnection`: a websocket after its handshake.

It lives on the hub as every other connection, so that an idle browser costs no greenlet.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from ...logs.loggers import get_logger
from ...net.connection import Data
from ...net.stream import READ_BYTES, StreamState
from ...protocols.tls import TlsFilter
from ...protocols.websocket import GOING_AWAY, INTERNAL_ERROR, NORMAL, PING
from ..worker_connection import ConnectionOwner, WorkerConnection
from .websocket import WebSocket

log = get_logger(__name__)


class WebSocketConnection(WorkerConnection):
    """One websocket, with the verbs and callbacks of a `TcpConnection`.

    `on_message` gets str for a text message and bytes for a binary one. `on_connect` comes after
    the handshake.

    Attributes:
        request: the handshake's WSGI environment: path, query, cookies, Origin.
        subprotocol: the one agreed on, or None.
        peer_close: code and reason of the peer's Close frame; None while it has sent none.
    """

    __slots__ = (
        "_heard_at",
        "_pinged_at",
        "_unserved_bytes",
        "peer_close",
        "request",
        "subprotocol",
        "websocket",
    )

    def __init__(self, service: ConnectionOwner, request: dict[str, Any]) -> None:
        super().__init__(service)
        self.websocket = WebSocket(request, self, service.worker.max_frame_bytes)
        self._decoder: Any = self.websocket.decoder
        self.request = request
        self.subprotocol: str | None = None
        self.peer_close: tuple[int, str] | None = None
        self._unserved_bytes = 0  # read since the callbacks last were through
        # Times are monotonic seconds.
        self._heard_at = self.last_active  # a Pong is a sign of life, but no activity
        self._pinged_at = 0.0  # of the last Ping; 0 when the peer has sent something since

    # -- the user's verbs ---------------------------------------------------------------------

    def close(self, data: Data | None = None) -> None:
        """Send `data`, if any, then close with code 1000 when everything is sent."""
        if data is not None and self.state == StreamState.OPEN:
            self._put(data)
        self.close_code(NORMAL)

    def close_code(self, code: int, reason: str = "") -> None:
        """Close with a code of one's own when everything is sent.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; the last thousand is for applications.
            reason: for the peer; what is beyond 123 bytes is cut.

        Raises:
            ValueError: a code that must not be sent.
        """
        if self.state == StreamState.OPEN:
            self._events.clear()  # what the peer has said is not heard any more
            self.websocket.close(code, reason)
            self._close(f"closed here, {code} {reason}", linger=True)

    # -- events -------------------------------------------------------------------------------

    def _put(self, data: Data) -> None:
        self.websocket.send(data)

    def _received(self, data: bytes) -> None:
        self._heard_at = monotonic()
        self._pinged_at = 0.0
        websocket, events = self.websocket, self._events
        websocket.feed(data)
        before = len(events)
        while (message := websocket.receive()) is not None:
            events.append(("on_message", (message,)))
        if self.state == StreamState.CLOSED:  # it could not be answered a Ping
            return
        if self._decoder.failed:
            self._pause()
            if self._decoder.error is not None:
                events.append(("_refuse_broken", ()))
        if events:
            self.last_active = self._heard_at
            self._unserved_bytes += len(data)
            self._wake()
            # Pings should be answered while a callback takes its time, so read on for a while.
            if self._busy and not self._stalled and self._unserved_bytes >= READ_BYTES:
                self._stalled = True
                self._pause()
        self._count_kept(len(data), len(events) > before)

    def _write(self, data: bytes | bytearray) -> None:
        if self.state == StreamState.OPEN:
            super()._write(data)

    def _peer_said_close(self, code: int, reason: str) -> None:
        self.peer_close = (code, reason)
        self._events.append(("_answer_close", ()))  # the messages before it come first

    def _close_idle(self, is_draining: bool) -> None:
        self.close_code(GOING_AWAY, "shutting down" if is_draining else "idle")

    def _answer_close(self) -> None:
        assert self.peer_close is not None
        self.close_code(self.peer_close[0])

    def _refuse_broken(self) -> None:
        error = self._decoder.error
        self.close_code(error.code, error.message)
        log.info("%r: %s", self, error.message)

    def _crashed(self, event: str) -> None:
        if self.state == StreamState.OPEN:
            self._events.clear()
            self.close_code(INTERNAL_ERROR, "internal error")

    def _deliver(self) -> None:
        try:
            super()._deliver()
        finally:
            self._unserved_bytes = 0

    def _closed(self, reason: str) -> None:
        self.websocket.detach()
        super()._closed(reason)
        log.debug("%r: %s", self, reason)

    # -- looked after by the service, in the hub ----------------------------------------------

    def open(self, socket: Any, remote_address: str, tls: TlsFilter | None, early: bytes) -> None:
        """Take over the socket; `early` is what the peer sent right behind the handshake."""
        self._accept(socket, remote_address, tls)
        if early:
            self.bytes_read += len(early)
            self._received(early)

    def check(self, now: float, ping_interval: float) -> None:
        """Ping a peer that is silent; drop one that stays silent.

        Args:
            now: the monotonic clock.
            ping_interval: seconds of silence before a Ping, and after it before the end.
        """
        if self.state != StreamState.OPEN:
            return
        if self._stalled or self._user_paused or self._decoder.failed:
            self._pinged_at = 0.0  # we do not listen: silence says nothing
        elif self._pinged_at:
            if self._buffered or self._has_unread():
                self._pinged_at = now  # our Ping may be still on its way, or its answer unread
            elif now - self._pinged_at >= ping_interval:
                self._abort(f"no answer to a ping in {ping_interval:g} s")
        elif now - self._heard_at >= ping_interval:
            self._pinged_at = now
            self.websocket.send_frame(b"", PING)
