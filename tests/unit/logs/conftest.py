"""The root logger without pytest's handlers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from gtask.logs import delivery
from gtask.logs.handler import own_handler, set_own_handler


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """Put right afterwards, as is what gtask knows of its own handler."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers[:] = []
    yield root
    if (own := own_handler()) is not None:
        own.output.close()
        set_own_handler(None)
    delivery._complaints.clear()
    root.handlers[:] = handlers
    root.setLevel(level)
