"""INI text with something wrong in it, and what is said of that."""

from __future__ import annotations

import pytest

from gtask.config import parse_settings
from gtask.errors import ConfigError

SERVICE = "[worker:A]\nlisten = text://127.0.0.1:1\ntasks = t\n"


def service(lines: str) -> str:
    """A service that is right but for `lines`."""
    return f"{SERVICE}{lines}\n"


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "f.ini")
    return caught.value.problems
