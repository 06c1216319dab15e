"""RFC 6455, the server's side: bytes to messages and control frames, and back.

The decoder reports, it never closes or answers: after an error, or the peer's Close, it takes in
nothing more. It holds at most one message and one frame, and refuses by the header what is larger.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import struct
from typing import Any

from ..errors import ProtocolError

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

NORMAL = 1000
GOING_AWAY = 1001
BROKEN_PROTOCOL = 1002
NO_CODE = 1005  # never on the wire: the Close frame held none
INVALID_DATA = 1007
TOO_BIG = 1009
INTERNAL_ERROR = 1011

MAX_CONTROL_BYTES = 125
FIN, RESERVED, OPCODE, MASKED, LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F

Event = tuple[int, Any]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_Utf8Decoder = codecs.getincrementaldecoder("utf-8")


class WebSocketError(ProtocolError):
    """The peer broke RFC 6455; `code` is what its Close frame says."""

    fatal = True


class MessageDecoder:
    """Cuts what a client sends into messages and control frames.

    Any split of the stream gives the same events. Work is linear in the stream's length, also
    when a frame arrives one byte at a time.

    Attributes:
        error: what the peer did wrong, once it did.
        is_closed: the peer has sent its Close frame.
    """

    __slots__ = (
        "_buffer",
        "_limit",
        "_message",
        "_opcode",
        "_utf8",
        "_wanted",
        "error",
        "is_closed",
    )

    def __init__(self, max_message_bytes: int) -> None:
        self._limit = max_message_bytes
        self._buffer: bytes | bytearray = b""  # the beginning of a frame
        self._wanted = 0  # how long the buffer must be before it is worth another look
        self._opcode = CONTINUATION  # TEXT or BINARY within a fragmented message
        self._message = bytearray()  # its fragments so far
        self._utf8: codecs.IncrementalDecoder | None = None  # checks them, if it is TEXT
        self.error: WebSocketError | None = None
        self.is_closed = False

    @property
    def partial_bytes(self) -> int:
        """What a message that is not whole takes, with the room it has to grow."""
        size = len(self._buffer) + len(self._message)
        return size + size // 8

    @property
    def failed(self) -> bool:
        """What is fed is ignored from now on."""
        return self.is_closed or self.error is not None

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes, in order; none after a failure.

        The caller must look at `error` afterwards: the events returned then are those before it.

        Returns:
            ``(TEXT, str)``, ``(BINARY, bytes)``, ``(PING, bytes)``, ``(PONG, bytes)`` and
            ``(CLOSE, (code, reason))``, the code being `NO_CODE` if the peer gave none.
        """
        if self.failed:
            return []
        stream: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            stream = self._buffer
        events: list[Event] = []
        start, end = 0, len(stream)
        try:
            while start < end:
                after = self._take_frame(stream, start, events)
                if after == start or self.is_closed:
                    break
                start = after
        except WebSocketError as error:
            self.error = error
        if self.failed:
            self._buffer, self._message = b"", bytearray()
        elif start == end:
            self._buffer = b""
        elif isinstance(stream, bytearray):
            del stream[:start]  # cheap: a bytearray gives up its front without moving the rest
        else:
            self._buffer = bytearray(memoryview(stream)[start:])
        return events

    def _take_frame(self, data: bytes | bytearray, start: int, events: list[Event]) -> int:
        """Append the event of the frame at `start`, if it ends one; returns where the next starts.

        That is `start` again while the frame is not whole.
        """
        available = len(data) - start
        if available < 2:
            self._wanted = 2
            return start
        first, second = data[start], data[start + 1]
        opcode, length = first & OPCODE, second & LENGTH
        self._check(first, second, opcode, length)
        header = 6  # with the mask
        if length > MAX_CONTROL_BYTES:
            header, code, least = (8, "!H", 126) if length == 126 else (14, "!Q", 65536)
            if available < header - 4:
                self._wanted = header - 4
                return start
            (length,) = struct.unpack_from(code, data, start + 2)
            if length < least or length >= 1 << 63:
                raise WebSocketError(BROKEN_PROTOCOL, "the length is not encoded minimally")
        if opcode < CLOSE and len(self._message) + length > self._limit:
            raise WebSocketError(TOO_BIG, f"message longer than {self._limit} bytes")
        after = start + header + length
        if len(data) < after:
            self._wanted = header + length
            return start
        body = start + header
        payload = apply_mask(data[body:after], data[body - 4 : body]) if length else b""
        if opcode < CLOSE:
            self._take_data(opcode, first & FIN, payload, events)
        elif opcode == CLOSE:
            events.append((CLOSE, _parse_close(payload)))
            self.is_closed = True
        else:
            events.append((opcode, payload))
        return after

    def _check(self, first: int, second: int, opcode: int, length: int) -> None:
        if first & RESERVED:
            raise WebSocketError(BROKEN_PROTOCOL, "reserved bits are set")
        if not second & MASKED:
            raise WebSocketError(BROKEN_PROTOCOL, "the frame is not masked")
        if opcode >= CLOSE:
            if opcode > PONG:
                raise WebSocketError(BROKEN_PROTOCOL, f"unknown opcode {opcode}")
            if not first & FIN or length > MAX_CONTROL_BYTES:
                raise WebSocketError(BROKEN_PROTOCOL, "control frame fragmented or too long")
        elif opcode > BINARY:
            raise WebSocketError(BROKEN_PROTOCOL, f"unknown opcode {opcode}")
        elif (opcode == CONTINUATION) != (self._opcode != CONTINUATION):
            raise WebSocketError(
                BROKEN_PROTOCOL,
                "nothing to continue" if opcode == CONTINUATION else "expected a continuation",
            )

    def _take_data(self, opcode: int, fin: int, payload: bytes, events: list[Event]) -> None:
        try:
            if fin and opcode:  # a message in one frame, as nearly always
                events.append((opcode, payload.decode() if opcode == TEXT else payload))
                return
            if opcode:
                self._opcode = opcode
                self._utf8 = _Utf8Decoder() if opcode == TEXT else None
            self._message += payload
            if self._utf8 is not None:
                self._utf8.decode(payload)  # a bad message fails before its end
            if fin:
                text = self._opcode == TEXT
                events.append(
                    (self._opcode, self._message.decode() if text else bytes(self._message))
                )
                self._opcode, self._utf8, self._message = CONTINUATION, None, bytearray()
        except UnicodeDecodeError:
            raise WebSocketError(INVALID_DATA, "text that is not UTF-8") from None


def apply_mask(payload: bytes | bytearray, mask: bytes | bytearray) -> bytes:
    """`payload` XOR the four bytes of `mask` again and again; its own inverse."""
    length = len(payload)
    key = (bytes(mask) * (length // 4 + 1))[:length]
    # Two big integers: a hundred times faster than a loop over the bytes.
    number = int.from_bytes(payload, "little") ^ int.from_bytes(key, "little")
    return number.to_bytes(length, "little")


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One whole, unmasked frame, as a server sends it."""
    length = len(payload)
    if length < 126:
        return bytes((FIN | opcode, length)) + payload
    if length < 65536:
        return struct.pack("!BBH", FIN | opcode, 126, length) + payload
    return struct.pack("!BBQ", FIN | opcode, 127, length) + payload


def encode_close(code: int = NORMAL, reason: str = "") -> bytes:
    """A Close frame; `NO_CODE` gives an empty one. A long reason is cut.

    Raises:
        ValueError: a code that must not be sent.
    """
    if code == NO_CODE:
        return encode_frame(CLOSE, b"")
    if not is_close_code(code):
        raise ValueError(f"{code} is not a close code that may be sent")
    text = reason.encode()[: MAX_CONTROL_BYTES - 2].decode("utf-8", "ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)


def is_close_code(code: int) -> bool:
    """Whether a Close frame may carry `code`: RFC 6455 section 7.4 and IANA's registry."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def accept_key(key: str) -> str | None:
    """What to answer to a Sec-WebSocket-Key; None if that is not 16 bytes in base64."""
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(nonce) != 16:
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()


def _parse_close(payload: bytes) -> tuple[int, str]:
    if not payload:
        return NO_CODE, ""
    if len(payload) < 2 or not is_close_code(code := int.from_bytes(payload[:2], "big")):
        raise WebSocketError(BROKEN_PROTOCOL, "invalid close code")
    try:
        return code, payload[2:].decode()
    except UnicodeDecodeError:
        raise WebSocketError(INVALID_DATA, "close reason that is not UTF-8") from None
