"""Waiting for conditions where the test and what it tests share a gevent hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent

from .wait import SLOWNESS


def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """As `wait_until`, letting the hub run."""
    with gevent.Timeout(seconds * SLOWNESS):
        while not condition():
            gevent.sleep(0.005)
