"""Arguments of a client that make no sense are refused when it is made."""

from __future__ import annotations

from typing import Any

import pytest

from gtask.client.options import Options

from .world import OPTIONS


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"dialect": "php"}, 'dialect must be "jsonrpc" or "bare", not \'php\''),
        ({"connections": 0}, "1 or more"),
        ({"max_pending": 0}, "1 or more"),
    ],
)
def test_what_makes_no_sense(wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Options(**{**OPTIONS, **wrong})


@pytest.mark.parametrize("dialect", ["jsonrpc", "bare"])
def test_what_does(dialect: str) -> None:
    assert Options(**{**OPTIONS, "dialect": dialect}).dialect == dialect
