"""A task's arguments as the command line of `gtask-call` has them."""

from __future__ import annotations

import json
import re
from typing import Any

NAMED = re.compile(r"([^\W\d][\w.-]*)(:=|=)(.*)", re.DOTALL)

SHOWN = 200  # characters of what is wrong

HELP = """arguments:
  key=text     a keyword argument, as a string
  key:=JSON    a keyword argument of any type
  JSON         an object or array is all arguments; any other value is the next positional one
  -            all arguments as JSON from standard input
"""


def read_arguments(words: list[str]) -> dict[str, Any] | list[Any] | None:
    """The keyword or positional arguments that `words` stand for, or None.

    Raises:
        ValueError: with what is wrong.
    """
    named: dict[str, Any] = {}
    positional: list[Any] = []
    for word in words:
        match = NAMED.fullmatch(word)
        if match is None:
            positional.append(_parse(word))
        elif match[1] in named:
            raise ValueError(f"{match[1]} is given twice")
        else:
            named[match[1]] = match[3] if match[2] == "=" else _parse(match[3])
    if named and positional:
        raise ValueError("arguments are either all named (key=value) or all positional (JSON)")
    if len(positional) == 1 and isinstance(positional[0], dict | list):
        return positional[0]
    return named or positional or None


def read_json(text: str | bytes) -> dict[str, Any] | list[Any]:
    """All arguments, from standard input; UTF-8, UTF-16 or UTF-32, as RFC 4627 tells them apart.

    Raises:
        ValueError: with what is wrong.
    """
    arguments = _parse(text)
    if not isinstance(arguments, dict | list):
        raise ValueError("standard input must hold a JSON object or array")
    return arguments


def _parse(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f"{_shown(text)} is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not JSON in UTF-8: {error.reason}") from None
    except ValueError:
        shown = _shown(text)
        raise ValueError(f"{shown} is neither key=value nor JSON (a string: '\"text\"')") from None


def _shown(text: str | bytes) -> str:
    """The beginning of `text`, which may be huge."""
    if isinstance(text, bytes):
        text = text[: 4 * SHOWN].decode("utf-8", "replace")
    return repr(text) if len(text) <= SHOWN else repr(text[:SHOWN]) + "..."
