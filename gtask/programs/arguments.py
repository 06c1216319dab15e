"""A task's arguments as the command line of `gtask-call` has them, and what else is read there."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from typing import Any

NAMED = re.compile(r"([^\W\d][\w.-]*)(:=|=)(.*)", re.DOTALL)

SHOWN = 200  # characters of what is wrong

HELP = """arguments:
  key=text     a keyword argument, as a string
  key:=JSON    a keyword argument of any type
  JSON         an object or array is all arguments; any other value is the next positional one
  -            all arguments as JSON from standard input
what begins with - and is none of the options below, e.g. -1, is an argument, too, once URL and
FUNCTION are there; after -- everything is
"""

PLACES = 2  # URL and FUNCTION stand before the arguments


def split_words(
    words: Sequence[str], parser: argparse.ArgumentParser
) -> tuple[list[str], list[str]]:
    """The words that `parser` is to read, and those that are the task's arguments.

    `argparse` would take a number such as -1e3 for an option.
    """
    known = parser._option_string_actions  # as no public attribute tells them
    front: list[str] = []
    arguments: list[str] = []
    places, rest = 0, iter(words)
    for word in rest:
        action = known.get(word.partition("=")[0])
        if word == "--":
            between = list(rest)
            if places < PLACES:
                front += ["--", *between[: PLACES - places]]
            arguments += between[PLACES - places :]
        elif action is not None:
            front.append(word)
            if action.nargs is None and "=" not in word:
                front += [value for value in [next(rest, None)] if value is not None]
        elif places < PLACES:
            front.append(word)
            places += not word.startswith("-")
        else:
            arguments.append(word)
    return front, arguments


def seconds(text: str) -> float:
    """A time limit, as an option has it."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        problem = f"timeout must be a number of seconds, 0 or more, not {text!r}"
        raise argparse.ArgumentTypeError(problem)
    return value


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
        string = json.dumps(
            "text" if isinstance(text, bytes) or len(text) > SHOWN else text, ensure_ascii=False
        )
        raise ValueError(
            f"{_shown(text)} is neither key=value nor JSON (a string: '{string}')"
        ) from None


def _shown(text: str | bytes) -> str:
    """The beginning of `text`, which may be huge."""
    if isinstance(text, bytes):
        text = text[: 4 * SHOWN].decode("utf-8", "replace")
    return repr(text) if len(text) <= SHOWN else repr(text[:SHOWN]) + "..."
