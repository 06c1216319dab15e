"""JSON as of RFC 8259: read by msgspec, which is strict in one pass, written by ujson as ASCII.

ujson would write more than JSON can hold exactly, a Decimal as a double or any key by its `str`, so
it is given plain values only; `_exact` makes those of what the standard library can write, too.

What msgspec refuses although its grammar is that of RFC 8259: half a surrogate pair (`"\\ud800"`, no
text that UTF-8 could hold), numbers beyond a double (`1e999`), integers of more than 4,300 digits,
and nesting past the interpreter's recursion limit. Integers of up to that are exact.
"""

from __future__ import annotations

from json.encoder import encode_basestring_ascii
from math import isfinite
from typing import Any, Final

import msgspec
import ujson

from ..errors import PARSE_ERROR, InternalError, ProtocolError

CALL_BYTES: Final = 2000  # what a call takes as an object, without its arguments
LONG: Final = 400  # characters of a string from which on ujson writes it faster than `_quote`
MAX_DEPTH: Final = 1000  # levels of a value that is written; ujson's own bound is 1024

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


def weight_of(text: bytes) -> int:
    """Bytes of memory that the value of `text`, with the call that it is of, takes at the most.

    A list or an object takes many times what its text does, and so does a text of which one
    character is beyond the first 256.
    """
    size = len(text)
    if not text.isascii() or text.find(b"\\u") >= 0:
        size *= 4
    commas, lists, objects = text.count(b","), text.count(b"["), text.count(b"{")
    return CALL_BYTES + size + commas * 48 + lists * 64 + objects * 200


def dumps(value: Any) -> bytes:
    """`value` as one line of ASCII.

    Raises:
        InternalError: JSON cannot hold the value exactly.
    """
    kind = type(value)
    if kind is str:  # most results, and not much to do
        if len(value) < LONG:
            return _quote(value).encode("ascii")
        if value.isascii():
            plain = value.encode()
            if not plain.translate(None, _UNESCAPED):
                return b'"%b"' % plain
    elif value is None:
        return b"null"
    try:
        if kind is int:
            return b"%d" % value
        if not _is_plain(value, MAX_DEPTH):
            value = _exact(value, MAX_DEPTH)
        # ensure_ascii, and neither encode_html_chars, escape_forward_slashes, sort_keys, an indent
        # nor allow_nan; by name they would cost as much again as a small object does.
        line: bytes = _encode(value, True, False, False, False, 0, False).encode("ascii")
    except Exception as error:
        raise InternalError(
            f"not JSON: {error}", {"type": type(error).__name__, "message": str(error)}
        ) from None
    return line


def _is_plain(value: Any, depth: int) -> bool:
    """Whether ujson writes the value exactly, or refuses it; most are so at the first look.

    Args:
        depth: levels that it may have.
    """
    kind = type(value)
    if kind is dict:
        if depth == 0:
            return False
        members: dict[Any, Any] = value
        for key, member in members.items():
            if type(key) is not str:
                return False
            if type(member) is not str and not _is_plain(member, depth - 1):
                return False
        return True
    if kind is list:
        if depth == 0:
            return False
        items: list[Any] = value
        for item in items:  # noqa: SIM110  `all` would cost an object for each
            if type(item) is not str and not _is_plain(item, depth - 1):
                return False
        return True
    return kind is str or kind is int or kind is float or kind is bool or value is None


def _exact(value: Any, depth: int) -> Any:
    """The plain value for what the standard library's `json` would write.

    It takes subclasses for what they are subclasses of, a tuple for a list, and number, bool and
    None keys for their text.

    Raises:
        TypeError, ValueError: JSON cannot hold it.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if depth == 0:
        raise ValueError(f"more than {MAX_DEPTH} levels deep, or part of itself")
    if isinstance(value, list | tuple):
        return [_exact(item, depth - 1) for item in value]
    if isinstance(value, dict):
        return _exact_object(value, depth - 1)
    raise TypeError(f"a {type(value).__name__} is no JSON value")


def _exact_object(members: dict[Any, Any], depth: int) -> dict[str, Any]:
    exact: dict[str, Any] = {}
    for key, member in members.items():
        name = _name(key)
        if name in exact:
            raise ValueError(f"two keys would both be {name!r}")
        exact[name] = _exact(member, depth)
    return exact


def _name(key: Any) -> str:
    """A key as the standard library's `json` writes it."""
    if isinstance(key, str):
        return str.__str__(key)
    if key is None:
        return "null"
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return int.__repr__(key)
    if isinstance(key, float) and isfinite(key):
        return float.__repr__(key)
    if isinstance(key, float):
        raise ValueError(f"{float.__repr__(key)} is no JSON key")
    raise TypeError(f"a {type(key).__name__} is no JSON key")
