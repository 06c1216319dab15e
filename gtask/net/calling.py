"""`CallingConnection`: all that an `AsyncTcpConnection` does."""

from __future__ import annotations

import ssl
from time import monotonic
from typing import Any

from ..address import Address, parse_address
from ..compiled import mypyc_attr
from ..logs.loggers import get_logger
from ..protocols.text import MAX_FRAME_BYTES, TextDecoder
from .connection import (
    CONNECT_FAILED,
    MAX_SEND_BUFFER_BYTES,
    SEND_FAILED,
    Data,
    TcpConnection,
    _encode,
)
from .connector import Connector
from .stream import StreamState

log = get_logger("gtask.connection")


@mypyc_attr(allow_interpreted_subclasses=True)
class CallingConnection(TcpConnection):
    """The calling end of a text connection; its arguments are told of at `AsyncTcpConnection`."""

    __slots__ = (
        "_before",
        "_before_bytes",
        "_connector",
        "_deadline",
        "_is_again",
        "_is_securing",
        "_timer",
        "address",
        "connect_timeout",
        "ssl_context",
    )

    # Closing with unread input resets the connection, but a client that closes wants no more.
    _lingers = False

    def __init__(
        self,
        url: str | Address,
        *,
        connect_timeout: float = 5.0,
        ssl_context: ssl.SSLContext | None = None,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_send_buffer_bytes: int = MAX_SEND_BUFFER_BYTES,
    ) -> None:
        super().__init__(
            max_frame_bytes=max_frame_bytes, max_send_buffer_bytes=max_send_buffer_bytes
        )
        self.address = parse_address(url) if isinstance(url, str) else url
        if self.address.protocol != "text":
            raise ValueError(f"{url}: AsyncTcpConnection speaks text:// only")
        self.remote_address = str(self.address).partition("://")[2]
        self.connect_timeout = connect_timeout
        self.ssl_context = ssl_context
        self._before: list[bytes] = []  # sent before the connection was there
        self._before_bytes = 0
        self._connector: Connector | None = None
        self._deadline = 0.0  # of the connect that is under way; monotonic, seconds
        self._is_again = False  # it has been connected before
        self._is_securing = False  # it is the TLS handshake's turn
        self._timer: Any = None  # of that handshake, or of a planned reconnect

    def send(self, data: Data) -> bool:
        """As `TcpConnection.send`; before the connection is there, the frame is kept for it."""
        if self.state >= StreamState.OPEN:
            return super().send(data)
        frame = _encode(data)
        if self._is_full:
            self._emit("on_error", SEND_FAILED, "send buffer full, message dropped")
            return False
        self._before.append(frame)
        self._before_bytes += len(frame)
        return True

    def close(self, data: Data | None = None) -> None:
        """Send `data`, if any, and close when everything is sent.

        Also ends a connect, or a planned `reconnect`.
        """
        if self.state == StreamState.OPEN:
            super().close(data)
        elif self.state != StreamState.FLUSHING:
            self.destroy()

    def destroy(self) -> None:
        """Close at once; ends a connect or a planned `reconnect`, too."""
        self._stop_waiting()
        if self.state == StreamState.INITIAL:
            self.state = StreamState.CLOSED  # never connected: there is no end to tell of
            self._tell_room()
        else:
            super().destroy()

    def connect(self) -> None:
        """Begin to connect; returns at once. `on_connect` or `on_error`, `on_close` follow.

        While connecting or connected this does nothing.
        """
        if self.state not in (StreamState.INITIAL, StreamState.CLOSED):
            return
        self._stop_waiting()
        if self.state == StreamState.CLOSED:
            self._start_over()
        self.state = StreamState.CONNECTING
        self._deadline = monotonic() + self.connect_timeout
        self._connector = Connector(
            self._reactor, self.address, self.connect_timeout, self._connected, self._failed
        )
        self._connector.start()

    def reconnect(self, after: float = 0) -> None:
        """Connect again in `after` seconds; what an earlier try did not send is gone.

        A connect that is under way goes on: both `on_error` and `on_close` may ask for another one.
        """
        if self.state == StreamState.CONNECTING and after <= 0:
            return
        self._stop_waiting()
        if self.state not in (StreamState.INITIAL, StreamState.CLOSED):
            self._abort("reconnecting")
        if after > 0:
            self._timer = self._reactor.loop.timer(after)
            self._timer.start(self.connect, update=True)
        else:
            self.connect()

    @property
    def _is_full(self) -> bool:
        waiting = self._before_bytes if self.state < StreamState.OPEN else self._buffered
        return waiting >= self.max_send_buffer_bytes

    # -- connecting ---------------------------------------------------------------------------

    def _connected(self, socket: Any) -> None:
        self._connector = None
        try:
            self._open_calling(socket, self.ssl_context, self.address.server_name)
        except (ValueError, ssl.SSLError) as error:
            self._failed(f"TLS: {error}")
            return
        if self.ssl_context is None:
            self._begin()
        elif self.state == StreamState.OPEN:
            self.state = StreamState.CONNECTING  # until the handshake is over
            self._is_securing = True
            self._timer = self._reactor.loop.timer(max(0.0, self._deadline - monotonic()))
            self._timer.start(self._abort, "TLS: timed out", update=True)

    def _secured(self) -> None:
        self._stop_waiting()
        self.state = StreamState.OPEN
        self._begin()

    def _begin(self) -> None:
        """It is connected: send what was sent before, and tell."""
        if self._user_paused:
            self._pause()
        if self._before:
            output = b"".join(self._before)
            self._before.clear()
            self._before_bytes = 0
            self._write(output)
            if not self._buffered:
                self._tell_room()
        if self.on_connect is not None and self.state != StreamState.CLOSED:
            if self._is_again:
                self._events.append(("on_connect", ()))
                self._wake_in(2)
            else:
                self._emit("on_connect")

    def _wake_in(self, turns: int) -> None:
        """Deliver what is there after so many turns of the loop.

        After two, a server in this process has accepted the connection. Within a machine the kernel
        is so fast that the first connection is told of before; who connects again has time.
        """
        if turns == 0:
            self._stop_waiting()
            self._wake()
        elif self.state == StreamState.OPEN:
            self._stop_waiting()
            self._timer = self._reactor.loop.timer(0)
            self._timer.start(self._wake_in, turns - 1, update=True)

    def _failed(self, why: str) -> None:
        self._connector = None
        self._tell_failure(why)
        self._abort(why)

    def _tell_failure(self, why: str) -> None:
        # Queued, not called: the end must be reached before `on_error` may ask for a reconnect.
        self._events.append(("on_error", (CONNECT_FAILED, f"connect {self.remote_address}: {why}")))

    def _insecure(self, reason: str) -> None:
        if self._is_securing:
            self._abort(reason)
        else:
            super()._insecure(reason)

    def _ended(self) -> None:
        if self._is_securing:
            self._abort("TLS: closed by the peer")
        else:
            super()._ended()

    def _start_over(self) -> None:
        """Be as a new connection is; what the user has set stays."""
        self._is_again = True
        self._decoder = TextDecoder(self._decoder._limit)
        self._tls = None
        self._linger = False
        self.bytes_read = self.bytes_written = 0

    def _stop_waiting(self) -> None:
        self._is_securing = False
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _closed(self, reason: str) -> None:
        is_failure = self._is_securing
        if is_failure:
            self._tell_failure(reason)
        self._stop_waiting()
        self._before.clear()
        self._before_bytes = 0
        super()._closed(reason)
        if is_failure:
            log.warning("%r: %s", self, reason)
