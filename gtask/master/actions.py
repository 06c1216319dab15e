"""What the master is asked to do, as data: roster, change and stop decide it, the master does it.

None of these holds a socket, a process or a log, so that a decision can be compared in a test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Say:
    """Log a line; `is_trouble` is for warnings."""

    text: str
    is_trouble: bool = False


@dataclass(frozen=True)
class Spawn:
    """Have the generation's mold fork a worker."""

    generation: int
    service: str
    worker_id: int
    row: int


@dataclass(frozen=True)
class Signal:
    """Send a signal to a worker."""

    pid: int
    number: int


@dataclass(frozen=True)
class Abandon:
    """The new generation cannot boot and the previous one goes on."""

    generation: int
    reason: str


@dataclass(frozen=True)
class Dismiss:
    """End the mold of a generation, as no more workers are to be forked from it; they live on."""

    generation: int


@dataclass(frozen=True)
class Halt:
    """The service cannot start at all: end the program with the exit code."""

    reason: str
    code: int = 1


Action = Say | Spawn | Signal | Abandon | Dismiss | Halt
