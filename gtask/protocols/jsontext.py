"""JSON as of RFC 8259: read by msgspec, which is strict in one pass, written by ujson as ASCII.

What msgspec refuses although its grammar is that of RFC 8259: half a surrogate pair (`"\\ud800"`, no
text that UTF-8 could hold), numbers beyond a double (`1e999`), integers of more than 4,300 digits,
and nesting past the interpreter's recursion limit. Integers of up to that are exact.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from typing import Any, Final

import msgspec
import ujson

from ..errors import PARSE_ERROR, InternalError, ProtocolError

LONG: Final = 400  # characters of a string from which on ujson writes it faster than `_quote`

_parse: Final[Any] = msgspec.json.Decoder().decode  # `Final` is found without a look into a dict
_quote: Final = encode_basestring_ascii
_encode: Final[Any] = ujson.dumps  # its types, as published, name an argument that is gone
_UNESCAPED: Final = bytes({*range(0x20, 0x7F)} - {*b'"\\'})


def loads(text: bytes) -> Any:
    """The value that `text` holds.

    Raises:
        ProtocolError: with code -32700; `text` is not UTF-8, not JSON, or past one of the bounds.
    """
    try:
        return _parse(text)
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError(PARSE_ERROR, f"Parse error: {error}") from None


def dumps(value: Any) -> bytes:
    """`value` as one line of ASCII.

    Raises:
        InternalError: the value is not JSON.
    """
    kind = type(value)
    if kind is str:  # most results, and not much to do
        if len(value) < LONG:
            return _quote(value).encode("ascii")
        if value.isascii():
            plain = value.encode()
            if not plain.translate(None, _UNESCAPED):
                return b'"%b"' % plain
    elif kind is int:
        return b"%d" % value
    elif value is None:
        return b"null"
    try:
        # ensure_ascii, and neither encode_html_chars, escape_forward_slashes, sort_keys, an indent
        # nor allow_nan; by name they would cost as much again as a small object does.
        line: bytes = _encode(value, True, False, False, False, 0, False).encode("ascii")
    except Exception as error:  # whatever a value's __json__ raises, too
        raise InternalError(
            f"not JSON: {error}", {"type": type(error).__name__, "message": str(error)}
        ) from None
    # Only an object's __json__, which ujson inserts as it is, can do this.
    if line.find(b"\n") >= 0:
        raise InternalError("not JSON: a line feed between tokens")
    return line
