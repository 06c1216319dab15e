"""What the master is asked to do, as data: roster, change and stop decide it, the master does it.

None of these holds a socket, a process or a log, so that a decision can be compared in a test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class Asker(Protocol):
    """A client of the control socket, as far as those who decide need to know it."""

    def reply(self, **answer: Any) -> None:
        """Answer its request."""


@dataclass(frozen=True)
class Say:
    """Log a line; `is_trouble` is for warnings."""

    text: str
    is_trouble: bool = False


@dataclass(frozen=True)
class Reply:
    """Answer a client of the control socket."""

    client: Asker
    answer: Mapping[str, Any]


@dataclass(frozen=True)
class Halt:
    """The service cannot start at all: end the program with the exit code."""

    reason: str
    code: int = 1


@dataclass(frozen=True)
class Dismiss:
    """End the mold of a generation, as no more workers are to be forked from it; they live on."""

    generation: int


@dataclass(frozen=True)
class Abort:
    """Have the mold of a generation write its stacks to the log and end: it has not loaded."""

    generation: int


# What the roster asks for.


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


# What a start or reload asks for.


@dataclass(frozen=True)
class Begin:
    """Read the settings, open the addresses, and fork the mold of a new generation."""


@dataclass(frozen=True)
class TakeOver:
    """Fork workers of the generation, which replace those of the present one."""

    generation: int


@dataclass(frozen=True)
class Withdraw:
    """Have the generation that takes over give way to the one before, which serves still."""

    generation: int


@dataclass(frozen=True)
class GoBack:
    """Use the settings and the addresses of the generation again: the newer one has failed."""

    generation: int


@dataclass(frozen=True)
class Complain:
    """Log that a reload has failed, and why."""

    problems: tuple[str, ...]


@dataclass(frozen=True)
class Complete:
    """The generation serves: give up the addresses that it has not, and report that it is ready."""

    generation: int


# What a stop asks for.


@dataclass(frozen=True)
class StopServing:
    """Let no new connections begin and no new processes be forked; report that we stop."""


@dataclass(frozen=True)
class StopWorkers:
    """Drain, end or kill the workers, by the stage of the stop: 1, 2 or 3."""

    stage: int


@dataclass(frozen=True)
class StopAccepting:
    """Have the kernel refuse connections on all listening sockets of ours."""


@dataclass(frozen=True)
class End:
    """No process is left: end the loop."""


Action = (
    Say
    | Reply
    | Halt
    | Dismiss
    | Abort
    | Spawn
    | Signal
    | Abandon
    | Begin
    | TakeOver
    | Withdraw
    | GoBack
    | Complain
    | Complete
    | StopServing
    | StopWorkers
    | StopAccepting
    | End
)
