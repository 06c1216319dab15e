"""The places that worker processes fill: one slot for each worker id of each service.

    BOOTING ──ready──► READY ──drain──► DRAINING ──exited──► forgotten
       └──────────────── exited ───────────┴── from any phase

A process is in its slot until it drains. This is bookkeeping only: the roster decides. Moments are
seconds of the monotonic clock.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .plans import Plan

MAX_BACKOFF_SECONDS = 5.0
CLOSING_SECONDS = 0.5  # that a process which drains may take to close its listening socket
WATCH_SECONDS = 0.01  # between two checks whether it has
LATE_SECONDS = (
    1.0  # a process ends by itself when its `boot_timeout` is over, and says where it hangs
)
DUMP_SECONDS = 1.0  # from the dump of a process's stacks to its kill


def too_late(boot_timeout: float) -> str:
    """Why a process was ended that did not become ready, and could not say why itself."""
    return f"not ready within boot_timeout ({boot_timeout:g} s), the log has its stacks"


class Phase(Enum):
    """Where a process is in its life, as the master sees it."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(eq=False)
class Process:
    """One worker process.

    Attributes:
        row: its row on the scoreboard of its generation and service.
        since: when it was asked for, later when it was forked, and then when it was ready.
        place: the address that it listens on.
        was_ready: it has accepted connections, so tasks may run in it.
        pid: 0 until the mold has reported it.
        deadline: when it is killed if it has not ended by then.
        recycled_for: why it asks to be replaced; empty while it is to stay.
        killed_for: why we killed it, if we did.
        failure: why it says that it cannot boot.
        last_sign: when its loop last turned, as far as we can tell.
    """

    generation: int
    service: str
    worker_id: int
    row: int
    since: float
    place: str = ""
    pid: int = 0
    was_ready: bool = False
    phase: Phase = Phase.BOOTING
    deadline: float = math.inf
    recycled_for: str = ""
    killed_for: str = ""
    failure: str = ""
    last_sign: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.service} {self.worker_id}"


@dataclass
class Slot:
    """The place of one worker id.

    Attributes:
        crashes: how many of its processes in a row died quickly.
        not_before: the moment of the next try.
        processes: those in it, none of them draining, the youngest last.
    """

    crashes: int = 0
    not_before: float = 0.0
    processes: list[Process] = field(default_factory=list)

    def staying(self, generation: int) -> Process | None:
        """The one that is to stay; the others are to be replaced by it."""
        for process in self.processes:
            if process.generation == generation and not process.recycled_for:
                return process
        return None

    def is_served(self, generation: int) -> bool:
        """A process of the generation is ready in it, or known to crash."""
        process = self.staying(generation)
        return self.crashes > 0 or (process is not None and process.phase == Phase.READY)

    @property
    def has_booting_successor(self) -> bool:
        """A process boots beside the one that it is to replace."""
        return len(self.processes) > 1 and self.processes[-1].phase == Phase.BOOTING

    def has_died(self, *, is_quick: bool, now: float) -> float:
        """Put the next try off if quick deaths repeat; returns by how many seconds."""
        self.crashes = self.crashes + 1 if is_quick else 0
        wait = backoff_seconds(self.crashes)
        self.not_before = now + wait
        return wait

    def forgive(self) -> None:
        """Other code, another chance."""
        self.crashes, self.not_before = 0, 0.0


def backoff_seconds(crashes: int) -> float:
    """How long to wait after so many quick deaths in a row.

    >>> [backoff_seconds(n) for n in (0, 1, 2, 3, 4, 20)]
    [0.0, 0.0, 0.1, 0.2, 0.4, 5.0]
    """
    return 0.0 if crashes <= 1 else min(0.1 * 2.0 ** min(crashes - 2, 10), MAX_BACKOFF_SECONDS)


class Slots:
    """All slots, and all processes: those in slots and those that drain.

    Attributes:
        processes: all that live or were asked for.
    """

    def __init__(self) -> None:
        self.processes: list[Process] = []
        self._by_pid: dict[int, Process] = {}
        self._slots: defaultdict[tuple[str, int], Slot] = defaultdict(Slot)

    def __getitem__(self, place: tuple[str, int]) -> Slot:
        """The slot of a service and a worker id."""
        return self._slots[place]

    def items(self) -> Iterator[tuple[str, int, Slot]]:
        """Every slot that there ever was, with its service and worker id."""
        for (service, worker_id), slot in self._slots.items():
            yield service, worker_id, slot

    def wanted(self, plans: Mapping[str, Plan]) -> Iterator[tuple[str, int, Slot]]:
        """The slots that are to be filled, with their services and worker ids."""
        for service, plan in plans.items():
            for worker_id in range(plan.count):
                yield service, worker_id, self._slots[service, worker_id]

    def find(self, pid: int) -> Process | None:
        """The process with this id, if it is one of ours."""
        return self._by_pid.get(pid)

    def at(self, generation: int, service: str, row: int) -> Process | None:
        """The process with this row on its scoreboard."""
        return next((each for each in self._of(generation, service) if each.row == row), None)

    def add(
        self, generation: int, service: str, worker_id: int, plan: Plan, now: float
    ) -> Process | None:
        """Note a process that is asked for; it gets the lowest row that is free, if there is one."""
        taken = {each.row for each in self._of(generation, service)}
        row = next((row for row in range(plan.rows) if row not in taken), None)
        if row is None:
            return None
        process = Process(generation, service, worker_id, row, now, place=plan.place, last_sign=now)
        self.processes.append(process)
        self._slots[service, worker_id].processes.append(process)
        return process

    def draining(self, generation: int, service: str) -> int:
        """How many of its processes drain."""
        return sum(each.phase == Phase.DRAINING for each in self._of(generation, service))

    def _of(self, generation: int, service: str) -> Iterator[Process]:
        for process in self.processes:
            if process.generation == generation and process.service == service:
                yield process

    def forked(self, process: Process, pid: int, now: float) -> None:
        """The process has got its id."""
        process.pid = pid
        process.since = now
        self._by_pid[pid] = process

    def vacate(self, process: Process) -> None:
        """Take a process that drains out of its slot."""
        if process.phase != Phase.DRAINING:
            process.phase = Phase.DRAINING
            self._slots[process.service, process.worker_id].processes.remove(process)

    def remove(self, process: Process) -> None:
        """Forget a process that has ended."""
        self.vacate(process)
        self.processes.remove(process)
        self._by_pid.pop(process.pid, None)

    def forgive(self) -> None:
        """Let every slot be tried at once again."""
        for slot in self._slots.values():
            slot.forgive()
