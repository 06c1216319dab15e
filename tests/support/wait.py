"""Waiting for conditions instead of sleeping for times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

SLOWNESS = float(os.environ.get("GTASK_TEST_SLOWNESS", "1"))


def wait_until(
    condition: Callable[[], Any],
    seconds: float = 10.0,
    what: str = "",
    *,
    sleep: Callable[[float], Any] = time.sleep,
) -> Any:
    """The first true value of `condition`; fails the test when there is none in time.

    Args:
        sleep: `gevent.sleep` where this process has greenlets that must go on meanwhile.
    """
    deadline = time.monotonic() + seconds * SLOWNESS
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what or condition}")
        sleep(0.01)
