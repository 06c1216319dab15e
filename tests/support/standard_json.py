"""The standard library as the judge of what is JSON."""

from __future__ import annotations

import json


def _refuse(name: str) -> None:
    raise ValueError(name)


def verdict(text: str) -> tuple[bool, object]:
    """Whether it reads the text, its own liberties (NaN, Infinity) refused; and the value."""
    try:
        return True, json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False, None
