"""The callbacks that users set: their names, in one place for `Worker`, connections and handler modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Callback = Callable[..., Any] | None

# What docs/callbacks.md says a process calls with its `Worker`.
WORKER_CALLBACKS = ("on_worker_start", "on_worker_stop", "on_worker_reload")

# And what it calls with a connection, which starts with those of its `Worker`.
CONNECTION_CALLBACKS = (
    "on_connect",
    "on_message",
    "on_close",
    "on_error",
    "on_buffer_full",
    "on_buffer_drain",
)
