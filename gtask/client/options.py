"""`Options`: what a `TaskClient` was told of its connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

MAX_SECONDS = 1e9
DIALECTS = ("jsonrpc", "bare")


@dataclass(frozen=True)
class Options:
    """`TaskClient`'s arguments of the same names; described there.

    Raises:
        ValueError: one of them makes no sense.
    """

    connections: int
    dialect: str
    keep_connections: bool
    connect_timeout: float
    patience: float
    max_age: float
    max_pending: int
    max_frame_bytes: int
    ssl_context: ssl.SSLContext | None

    def __post_init__(self) -> None:
        if self.dialect not in DIALECTS:
            raise ValueError(f'dialect must be "jsonrpc" or "bare", not {self.dialect!r}')
        if self.connections < 1 or self.max_pending < 1:
            raise ValueError("connections and max_pending must be 1 or more")
        if self.max_frame_bytes < 1:
            raise ValueError("max_frame_bytes must be 1 or more")
        if not 0 < self.connect_timeout < MAX_SECONDS:
            raise ValueError(f"connect_timeout must be above 0 s, not {self.connect_timeout!r}")
        for name in ("patience", "max_age"):
            if not 0 <= getattr(self, name) < MAX_SECONDS:
                raise ValueError(f"{name} must be 0 s or more, not {getattr(self, name)!r}")
