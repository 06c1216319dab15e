"""`Options`: what a `TaskClient` was told of its connections."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

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
