"""Strict JSON (RFC 8259) on ujson.

ujson reads more than JSON: NaN, `-`, `01`, `1.`, raw control characters in strings. One regular
expression over the text refuses these before ujson sees it, at 0.7 µs per 100 bytes; most texts are
spared it, as a glance shows that no number of theirs is one of those.
"""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, Final

import ujson

from ..errors import PARSE_ERROR, InternalError, ProtocolError

# Runs of structure and literals, each followed by one string or one number. Possessive, hence
# linear; unrolled ("normal* (special normal*)*"), which halves its cost. It checks tokens only:
# ujson itself refuses what is wrong between them.
_TOKENS: Final = re.compile(
    r"(?:[^\"0-9\x00-\x08\x0b\x0c\x0e-\x1f.NI-]*+"
    r"(?:\"[^\"\\\x00-\x1f]*+(?:\\.[^\"\\\x00-\x1f]*+)*+\""
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?+(?:[eE][+-]?[0-9]++)?+(?![0-9.]))?+)*+",
    re.DOTALL,
)


# What stands before a value becomes a comma, a doubtful number's beginning a zero, another digit a
# nine, a control character a NUL; spaces go. A text of which no comma is followed by a zero, or by a
# nine where it has points, holds no number that needs a look. In strings these pairs mean nothing.
_SIGHT: Final = bytes.maketrans(
    b":,[{-0NI123456789" + bytes(range(0x20)), b",,,,0000999999999" + bytes(0x20)
)
_SIGHT_OF_LINES: Final = _SIGHT[:0x0A] + b"," + _SIGHT[0x0B:]
_RPC: Final = b'{"jsonrpc":"2.0",'  # its point needs no look

_PRINTABLE: Final = bytes(range(0x20, 0x100))

LONG: Final = (
    400  # from here on strings are cut out before the expression looks, and written by ujson
)


def loads(text: bytes) -> Any:
    """The value that `text` holds.

    Raises:
        ProtocolError: with code -32700; `text` is not UTF-8, not JSON, or nested too deeply.
    """
    try:
        # ujson reads ASCII bytes twice as fast as a str; of other bytes it lets surrogates pass.
        string = text if text.isascii() else text.decode()
        sight = text.translate(_SIGHT, b" ") if len(text) < LONG else b""
        if not (
            sight[:1] == b","
            and sight.find(b",0") < 0
            and sight.find(b"\0") < 0
            and (
                sight.find(b",9") < 0
                or text.find(b".", len(_RPC) if text.startswith(_RPC) else 0) < 0
            )
        ) and not _is_strict(text):
            raise ProtocolError(PARSE_ERROR, "Parse error: not JSON as of RFC 8259")
        return ujson.loads(string)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(PARSE_ERROR, f"Parse error: {error}") from None


def are_clear(lines: bytes) -> bool:
    """Whether a look at all of several lines spares one at each: then `loads_clear` reads them.

    Args:
        lines: from the beginning of a line on; the last one may be cut off.
    """
    sight = lines.translate(_SIGHT_OF_LINES, b" ")
    return (
        lines.isascii()
        and sight[:1] == b","
        and sight.find(b",0") < 0
        and sight.find(b"\0") < 0
        and (sight.find(b",9") < 0 or lines.count(b".") == lines.count(b'"2.0"'))
    )


def loads_clear(text: bytes) -> Any:
    """`loads` for a line of those that `are_clear`."""
    try:
        return ujson.loads(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(PARSE_ERROR, f"Parse error: {error}") from None


def _is_strict(text: bytes) -> bool:
    """`text`, if ujson reads it, is JSON."""
    if len(text) >= LONG and not text.translate(None, _PRINTABLE):
        text = _without_strings(text)
    return _TOKENS.fullmatch(text.decode()) is not None


def _without_strings(text: bytes) -> bytes:
    """What stands between the strings, each of them a space: four times as fast as to match them."""
    if text.find(b"\\") >= 0:
        text = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b" ".join(text.split(b'"')[::2])


def dumps(value: Any) -> bytes:
    """`value` as one line of ASCII.

    Raises:
        InternalError: the value is not JSON.
    """
    kind = type(value)
    if kind is str and len(value) < LONG:  # most results: a third of the cost of asking ujson
        return _quote(value).encode("ascii")
    if kind is int:
        return b"%d" % value
    if value is None:
        return b"null"
    try:
        text = ujson.dumps(value, escape_forward_slashes=False, allow_nan=False)
        line = text.encode("ascii")
    except Exception as error:  # whatever a value's __json__ raises, too
        raise InternalError(
            f"not JSON: {error}", {"type": type(error).__name__, "message": str(error)}
        ) from None
    # Only an object's __json__, which ujson inserts as it is, can do this.
    if line.find(b"\n") >= 0:
        raise InternalError("not JSON: a line feed between tokens")
    return line
