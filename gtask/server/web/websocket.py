"""`WebSocket`: the messages of one connection, by the names that gevent-websocket gave them."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any, Protocol

from ...net.connection import Data
from ...protocols.websocket import (
    BINARY,
    CLOSE,
    NORMAL,
    PING,
    PONG,
    TEXT,
    MessageDecoder,
    encode_close,
    encode_frame,
)
from .gevent_websocket import BaseWebSocket


class FrameWriter(Protocol):
    """What a `WebSocket` needs of its connection."""

    @property
    def _is_full(self) -> bool:
        """So much waits to be sent that nothing should be added."""

    def _write(self, data: bytes) -> None:
        """Send `data`, or keep it until the kernel takes it."""

    def _peer_said_close(self, code: int, reason: str) -> None:
        """The peer's Close frame has come."""


class WebSocket(BaseWebSocket):  # type: ignore[misc]
    """gevent-websocket's `WebSocket` over buffers: nothing in it waits.

    `feed` takes in what came from the socket, `receive` gives the messages that have arrived, and
    `send` writes to the connection's buffer. So no time limit can cut a frame in two, and any
    greenlet may send. An application finds it as ``environ["wsgi.websocket"]``.

    Attributes:
        decoder: what cuts the peer's octets into messages; tells what the peer did wrong.
        closed: our Close frame has been sent, or the connection has ended.
    """

    closed: bool
    raw_write: Any

    def __init__(
        self, environ: dict[str, Any], connection: FrameWriter, max_message_bytes: int
    ) -> None:
        super().__init__(environ, SimpleNamespace(read=None, write=connection._write), None)
        self.decoder = MessageDecoder(max_message_bytes)
        self._connection: Any = connection
        self._events: deque[tuple[int, Any]] = deque()

    def __del__(self) -> None:
        """Nothing: the base class would send from the garbage collector."""

    def feed(self, data: bytes) -> None:
        """Take in what the peer has sent; see `decoder.error` when all is received."""
        self._events.extend(self.decoder.feed(data))

    def receive(self) -> str | bytes | None:
        """The next message that has arrived whole, or None; answers the Pings in between."""
        while self._events and not self.closed:
            opcode, payload = self._events.popleft()
            if opcode in (TEXT, BINARY):
                return payload  # type: ignore[no-any-return]
            if opcode == PING:
                self.handle_ping(None, payload)
            elif opcode == CLOSE:
                self.handle_close(None, payload)
        return None

    def handle_ping(self, header: Any, payload: bytes) -> None:
        if not self._connection._is_full:  # else it reads no Pongs either
            self.send_frame(payload, PONG)

    def handle_close(self, header: Any, payload: tuple[int, str]) -> None:
        self._connection._peer_said_close(*payload)

    def send(self, message: Data, binary: bool | None = None) -> None:
        """Send one message: text from str, binary from bytes, unless `binary` says otherwise.

        Raises:
            TypeError: neither str nor bytes.
            ValueError: text that cannot be UTF-8, i.e. holds half a surrogate pair.
        """
        if binary is None:
            binary = not isinstance(message, str)
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes | bytearray | memoryview):
            raise TypeError(f"send takes str or bytes, not {type(message).__name__}")
        self.send_frame(bytes(message), BINARY if binary else TEXT)

    def send_frame(self, message: bytes, opcode: int) -> None:
        if not self.closed:
            self.raw_write(encode_frame(opcode, message))

    def close(self, code: int = NORMAL, message: str = "") -> None:
        """Send the Close frame; nothing can be sent after it."""
        if not self.closed:
            frame = encode_close(code, message)
            self.closed = True
            self.raw_write(frame)

    def detach(self) -> None:
        """The connection has ended; let go of it, so that no cycle keeps its memory."""
        self.closed = True
        self.raw_write = self.stream = self.environ = self._connection = None
