"""What others have sent, as it is shown to people: in logs, tables and on terminals.

A peer chooses ids, names, messages and sometimes its own address. Shown as they are, they could
end a line and write the next one, or give orders to the terminal.
"""

from __future__ import annotations

import re

MOST_CHARACTERS = 200  # of one value that a peer has chosen

# Control characters, ends of lines and paragraphs, what turns the direction of text, and halves of
# characters, which no terminal can be sent.
_UNSAFE = r"\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_unsafe = re.compile(f"[{_UNSAFE}]")
_unsafe_in_text = re.compile(f"(?![\n\t])[{_UNSAFE}]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(value: object, most: int = MOST_CHARACTERS) -> str:
    """Any value as text of one line, and of about `most` characters at most.

    >>> printable("a\\nb\\x1b[2J")
    'a\\\\nb\\\\x1b[2J'
    >>> printable("abcdef", 3)
    'abc… (6 characters)'
    """
    return _unsafe.sub(_escape, shortened(value, most))


def shortened(value: object, most: int = MOST_CHARACTERS) -> str:
    """Any value as text of at most about `most` characters, nothing escaped."""
    try:
        text = value if isinstance(value, str) else str(value)
    except BaseException as error:  # an object of the user's, or an integer of thousands of digits
        text = f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def printable_text(text: str) -> str:
    """The same for text that may have several lines; nothing is cut."""
    return _unsafe_in_text.sub(_escape, text)


def printable_json(text: str) -> str:
    r"""JSON whose strings may hold anything, as JSON of the same value that a terminal only shows.

    JSON itself escapes what is below a space; the rest is escaped its way, as ``\u009b``.
    """
    return _unsafe_in_text.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
