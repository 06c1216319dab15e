"""The standard library as the judge of what is JSON that holds a value."""

from __future__ import annotations

import json
import math
from typing import Any


def _refuse(name: str) -> None:
    raise ValueError(name)


def verdict(text: str) -> tuple[bool, object]:
    """Whether it reads the text, its own liberties refused; and the value.

    Its liberties are NaN and Infinity, numbers beyond a double, which it takes for infinity, and
    half a surrogate pair, which is no text.
    """
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False, None
    return (True, value) if _is_exact(value) else (False, None)


def _is_exact(value: Any) -> bool:
    if isinstance(value, dict):
        return all(_is_exact(part) for pair in value.items() for part in pair)
    if isinstance(value, list):
        return all(map(_is_exact, value))
    if isinstance(value, str):
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return not isinstance(value, float) or math.isfinite(value)
