"""The caller's half: `TaskClient`, its calls, and the connections they share."""

from __future__ import annotations

from .calls import Call, as_completed, wait
from .client import TaskClient

__all__ = ["Call", "TaskClient", "as_completed", "wait"]
