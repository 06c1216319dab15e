"""Who should be running: the master's decisions, as data.

Facts come in by methods (a process was spawned, is ready, has ended, the operator wants to stop);
`decide` compares what runs with what should, and says what is to be done about it. No sockets,
processes, clocks or logs here: every moment is an argument, in seconds of a monotonic clock.

    BOOTING ──ready──► READY ──drain──► DRAINING ──exited──► forgotten
       └──────────────── exited ───────────┴── from any phase

One slot is one worker id of one service. A slot has at most one process that is to stay; others in
it are leaving, or stay until that one is ready. So a reload, a recycled worker, a changed `count`
and a crash are all the same: something in a slot is missing or is too many.
"""

from __future__ import annotations

import math
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from .exits import describe_exit

QUICK_SECONDS = 1.0  # a process that lives shorter counts as crashing
MAX_BACKOFF_SECONDS = 5.0
BOOT_ATTEMPTS = 3  # that may fail in a row before a generation is given up
BEAT_SLACK_SECONDS = 1.0  # between two heartbeats
PAUSE_SECONDS = 2.0  # between two decisions: then it was us who slept
DUMP_SECONDS = 1.0  # from the dump of the stacks to the kill
NOW_SECONDS = 2.0  # to stop at once takes this long at most
KILL_GRACE_SECONDS = 0.5  # a worker keeps to its deadline by itself
KILL_AGAIN_SECONDS = 5.0


class Phase(Enum):
    """Where a process is in its life, as the master sees it."""

    BOOTING = "booting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(frozen=True)
class Plan:
    """What one service should be: `count` processes, killed when stuck for `hard_timeout` seconds."""

    count: int
    hard_timeout: float = 0.0


@dataclass(eq=False)
class Process:
    """One worker process.

    Attributes:
        row: its row on the scoreboard of its generation and service.
        pid: 0 until the mold has told it.
        since: when it was asked for.
        deadline: when `next_signal` is due.
        leaving: why it is to be replaced or to go; empty while it is to stay.
        killed_for: why we killed it, if we did.
        last_sign: when its loop last turned.
    """

    generation: int
    service: str
    worker_id: int
    row: int
    since: float
    pid: int = 0
    phase: Phase = Phase.BOOTING
    deadline: float = math.inf
    next_signal: int = signal.SIGKILL
    leaving: str = ""
    killed_for: str = ""
    failure: str = ""
    last_sign: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.service} {self.worker_id}"


# What `decide` may ask for.


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
class Say:
    """Log a line; `is_trouble` is for warnings."""

    text: str
    is_trouble: bool = False


@dataclass(frozen=True)
class Abandon:
    """The new generation cannot boot and the previous one goes on."""

    generation: int
    reason: str


@dataclass(frozen=True)
class Retire:
    """A generation needs its mold no more, as none of its workers will be replaced by its like."""

    generation: int


@dataclass(frozen=True)
class Halt:
    """The service cannot boot at all: end the program."""

    reason: str


Action = Spawn | Signal | Say | Abandon | Retire | Halt


@dataclass
class _Crew:
    """A generation: what it should be, and how its boot goes."""

    number: int
    plans: Mapping[str, Plan]
    has_mold: bool = True
    failures: Counter[str] = field(default_factory=Counter)  # boots in a row that failed
    served: set[str] = field(default_factory=set)  # services that had a ready worker


@dataclass
class _Slot:
    crashes: int = 0  # quick deaths in a row
    not_before: float = 0.0  # the next try
    processes: list[Process] = field(default_factory=list)  # none of them draining

    def staying(self, generation: int) -> Process | None:
        """The one that is to stay; the others are to be replaced by it."""
        for process in self.processes:
            if process.generation == generation and not process.leaving:
                return process
        return None

    def is_served(self, generation: int) -> bool:
        process = self.staying(generation)
        return self.crashes > 0 or (process is not None and process.phase == Phase.READY)


class Roster:
    """All worker processes and what is to become of them.

    Args:
        stop_timeout: seconds a drain may take before the process is killed; may be changed.

    Attributes:
        processes: all that live or were asked for.
        restarts: how often a process of a service was replaced, by (service, reason).
        was_cut_off: a process was killed as it did not finish within `stop_timeout`.
    """

    def __init__(self, stop_timeout: float) -> None:
        self.stop_timeout = stop_timeout
        self.processes: list[Process] = []
        self._by_pid: dict[int, Process] = {}
        self.restarts: Counter[tuple[str, str]] = Counter()
        self.was_cut_off = False
        self.is_stopping = False
        self._crew = _Crew(0, {})
        self._previous: _Crew | None = None
        self._slots: defaultdict[tuple[str, int], _Slot] = defaultdict(_Slot)
        self._actions: list[Action] = []
        self._decided = math.inf
        self._awake_since = 0.0

    # -- what is known ------------------------------------------------------------------------

    @property
    def generation(self) -> int:
        """The number of the generation that new workers belong to; 0 before the first."""
        return self._crew.number

    @property
    def plans(self) -> Mapping[str, Plan]:
        return self._crew.plans

    @property
    def is_up(self) -> bool:
        """Every slot is served by the current generation, or its process is known to crash."""
        crew = self._crew
        return (
            not self.is_stopping
            and crew.number > 0
            and crew.served >= crew.plans.keys()
            and all(slot.is_served(crew.number) for slot in self._wanted())
        )

    @property
    def is_settled(self) -> bool:
        """`is_up`, and nothing else runs but what is leaving."""
        return self.is_up and all(
            process.generation == self._crew.number
            for process in self.processes
            if process.phase != Phase.DRAINING
        )

    def find(self, pid: int) -> Process | None:
        """The process with this id, if it is one of ours."""
        return self._by_pid.get(pid)

    # -- what happens -------------------------------------------------------------------------

    def loaded(self, generation: int, plans: Mapping[str, Plan]) -> None:
        """A mold is ready to fork; its generation takes over from the present one."""
        if self._crew.number:
            self._previous = self._crew
        self._crew = _Crew(generation, plans)
        self._forgive()

    def spawned(self, generation: int, service: str, row: int, pid: int) -> None:
        """The mold has forked the process asked for."""
        process = self._at(generation, service, row)
        if process is None or process.pid:
            self._actions.append(Signal(pid, signal.SIGKILL))  # given up before it was there
            return
        process.pid = pid
        self._by_pid[pid] = process
        if process.phase == Phase.DRAINING:
            self._actions.append(Signal(pid, signal.SIGKILL))

    def ready(self, pid: int, now: float) -> None:
        """The worker accepts connections."""
        process = self.find(pid)
        if process is None or process.phase != Phase.BOOTING:
            return
        process.phase = Phase.READY
        process.since = process.last_sign = now
        if process.generation == self._crew.number:
            self._crew.served.add(process.service)
            self._crew.failures[process.service] = 0

    def failed(self, pid: int, reason: str) -> None:
        """The worker says why it is about to end."""
        process = self.find(pid)
        if process is not None:
            process.failure = reason

    def not_spawned(self, generation: int, service: str, row: int, reason: str, now: float) -> None:
        """The mold could not fork the process asked for."""
        process = self._at(generation, service, row)
        if process is not None and not process.pid:
            self._forget(process, reason, now)

    def recycle(self, pid: int, reason: str) -> None:
        """The worker has had its share and wants to be replaced."""
        process = self.find(pid)
        if process is not None and process.phase == Phase.READY and not process.leaving:
            process.leaving = reason

    def beat(self, pid: int, last_sign: float) -> None:
        """The worker's loop turned at `last_sign`, see `last_sign`."""
        process = self.find(pid)
        if process is not None:
            process.last_sign = last_sign

    def exited(self, pid: int, status: int, now: float) -> None:
        """A child has been reaped."""
        process = self.find(pid)
        if process is not None:
            self._forget(process, process.killed_for or describe_exit(status), now)

    def mold_lost(self, generation: int, now: float) -> None:
        """The mold has ended: what it was still to fork will not come."""
        for crew in (self._crew, self._previous):
            if crew is not None and crew.number == generation:
                crew.has_mold = False
        for process in list(self.processes):
            if process.generation == generation and not process.pid:
                self._remove(process)
        previous = self._previous
        if generation == self._crew.number and previous is not None and previous.has_mold:
            self._abandon("the process that workers are forked from has died")

    def scale(self, delta: int) -> None:
        """TTIN and TTOU: so many processes more or fewer, never less than one.

        A service with a `count` of 1 stays single, as it may keep state in its process; unless it
        is the only one.
        """
        plans = dict(self._crew.plans)
        for name, plan in plans.items():
            if plan.count > 1 or len(plans) == 1:
                plans[name] = Plan(max(1, plan.count + delta), plan.hard_timeout)
        self._crew.plans = plans

    def drain(self, now: float) -> None:
        """Stop: let everything finish what it runs."""
        self.is_stopping = True
        for process in list(self.processes):
            self._drain(process, "stop", now)

    def hurry(self, now: float) -> None:
        """Stop now: finish nothing."""
        self.is_stopping = True
        for process in self.processes:
            self._leave_slot(process)
            process.killed_for = "stop"
            self._signal(process, signal.SIGINT, signal.SIGKILL, now + NOW_SECONDS)

    def kill(self, now: float) -> None:
        """Stop without asking."""
        self.is_stopping = True
        for process in self.processes:
            self._leave_slot(process)
            process.killed_for = "stop"
            self._signal(process, signal.SIGKILL, signal.SIGKILL, now + KILL_AGAIN_SECONDS)

    # -- what follows -------------------------------------------------------------------------

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; call it after every fact, and at `wake_at` at the latest."""
        if now - self._decided > PAUSE_SECONDS:
            self._awake_since = now  # nobody could beat while the machine slept
        self._decided = now
        self._keep_deadlines(now)
        if not self.is_stopping:
            self._fill_slots(now)
            self._empty_slots(now)
            self._retire()
        actions, self._actions = self._actions, []
        return actions

    def wake_at(self, now: float) -> float:
        """When the next decision is due; `math.inf` if only facts can change anything."""
        moments = [process.deadline for process in self.processes]
        if self._crew.has_mold and not self.is_stopping:
            moments += [slot.not_before for slot in self._wanted() if slot.not_before > now]
        return min(moments, default=math.inf)

    def _keep_deadlines(self, now: float) -> None:
        for process in list(self.processes):
            plan = self._crew.plans.get(process.service)
            if now >= process.deadline:
                if process.killed_for == "":
                    process.killed_for = "not finished in time"
                    self.was_cut_off = True
                    self._say(
                        f"{process.name} ({process.pid}) did not finish in time: killed", True
                    )
                self._signal(process, process.next_signal, signal.SIGKILL, now + KILL_AGAIN_SECONDS)
            elif plan is not None and plan.hard_timeout and process.phase != Phase.BOOTING:
                stuck = now - max(process.last_sign, self._awake_since)
                if stuck > plan.hard_timeout and process.killed_for == "":
                    process.killed_for = "hard_timeout"
                    self._say(
                        f"{process.name} ({process.pid}) is stuck for {stuck:.1f} s: killed", True
                    )
                    self._signal(process, signal.SIGABRT, signal.SIGKILL, now + DUMP_SECONDS)

    def _fill_slots(self, now: float) -> None:
        crew = self._crew
        if not crew.has_mold:
            return
        for service, plan in crew.plans.items():
            slots = [self._slots[service, worker_id] for worker_id in range(plan.count)]
            surge = max(2, plan.count // 4)  # how many may boot beside those they replace
            for slot in slots:
                newest = slot.processes[-1] if len(slot.processes) > 1 else None
                surge -= newest is not None and newest.phase == Phase.BOOTING
            for worker_id, slot in enumerate(slots):
                if now < slot.not_before or slot.staying(crew.number) is not None:
                    continue
                if slot.processes:
                    if surge <= 0:
                        continue
                    surge -= 1
                self._spawn(service, worker_id, now)

    def _empty_slots(self, now: float) -> None:
        crew = self._crew
        if not crew.served >= crew.plans.keys():
            return  # the old ones stay until we know that the new ones can boot
        for (service, worker_id), slot in self._slots.items():
            plan = crew.plans.get(service)
            is_wanted = plan is not None and worker_id < plan.count
            successor = slot.staying(crew.number) if is_wanted else None
            if is_wanted and (successor is None or successor.phase != Phase.READY):
                continue
            for process in list(slot.processes):
                if process is not successor:
                    is_old = process.generation != crew.number
                    self._drain(process, process.leaving or ("reload" if is_old else "count"), now)

    def _retire(self) -> None:
        if self._previous is not None and self.is_settled:
            self._actions.append(Retire(self._previous.number))
            self._previous = None

    def _spawn(self, service: str, worker_id: int, now: float) -> None:
        number = self._crew.number
        taken = {
            process.row
            for process in self.processes
            if process.generation == number and process.service == service
        }
        row = next(row for row in range(len(taken) + 1) if row not in taken)
        process = Process(number, service, worker_id, row, now, last_sign=now)
        self.processes.append(process)
        self._slots[service, worker_id].processes.append(process)
        self._actions.append(Spawn(number, service, worker_id, row))

    def _drain(self, process: Process, reason: str, now: float) -> None:
        if process.phase == Phase.DRAINING:
            return
        if reason == "reload" and process.phase == Phase.READY:
            self._actions.append(Signal(process.pid, signal.SIGHUP))  # it calls on_worker_reload
        if reason not in ("stop", "count"):
            self.restarts[process.service, reason.partition(":")[0]] += 1
        if reason not in ("stop", "reload"):
            self._say(f"{process.name} ({process.pid}) is to go: {reason}")
        self._leave_slot(process)
        deadline = now + self.stop_timeout + KILL_GRACE_SECONDS
        self._signal(process, signal.SIGTERM, signal.SIGKILL, deadline)

    def _signal(self, process: Process, number: int, following: int, deadline: float) -> None:
        process.next_signal = following
        process.deadline = deadline
        if process.pid:
            self._actions.append(Signal(process.pid, number))

    def _forget(self, process: Process, reason: str, now: float) -> None:
        """The process has ended, or never began."""
        phase = process.phase
        self._remove(process)
        if phase == Phase.DRAINING:
            if not process.killed_for and reason != "exit 0":
                self.was_cut_off = True
                self._say(
                    f"{process.name} ({process.pid}) ended before it had drained: {reason}", True
                )
            return
        has_booted = phase == Phase.READY
        reason = process.failure or reason
        self.restarts[process.service, reason if has_booted else "could not boot"] += 1
        slot = self._slots[process.service, process.worker_id]
        is_quick = not has_booted or now - process.since < QUICK_SECONDS
        slot.crashes = slot.crashes + 1 if is_quick else 0
        wait = backoff_seconds(slot.crashes)
        slot.not_before = now + wait
        then = f"; next try in {wait:.1f} s" if wait else ""
        what = "has ended" if has_booted else "could not boot"
        self._say(f"{process.name} ({process.pid}) {what}: {reason}{then}", True)
        if not has_booted and process.generation == self._crew.number:
            self._count_failure(process.service, reason)

    def _count_failure(self, service: str, reason: str) -> None:
        crew = self._crew
        crew.failures[service] += 1
        if crew.failures[service] < min(crew.plans[service].count, BOOT_ATTEMPTS):
            return
        reason = f"{service} cannot start: {reason}"
        if self._previous is not None and self._previous.has_mold:
            self._abandon(reason)
        elif service not in crew.served:
            self._actions.append(Halt(reason))

    def _abandon(self, reason: str) -> None:
        """Back to the previous generation."""
        assert self._previous is not None
        given_up, self._crew, self._previous = self._crew, self._previous, None
        self._forgive()
        self._actions.append(Abandon(given_up.number, reason))

    # -- looking things up --------------------------------------------------------------------

    def _wanted(self) -> Iterator[_Slot]:
        for service, plan in self._crew.plans.items():
            for worker_id in range(plan.count):
                yield self._slots[service, worker_id]

    def _forgive(self) -> None:
        """Other code, another chance."""
        for slot in self._slots.values():
            slot.crashes, slot.not_before = 0, 0.0

    def _leave_slot(self, process: Process) -> None:
        if process.phase != Phase.DRAINING:
            process.phase = Phase.DRAINING
            self._slots[process.service, process.worker_id].processes.remove(process)

    def _remove(self, process: Process) -> None:
        self._leave_slot(process)
        self.processes.remove(process)
        self._by_pid.pop(process.pid, None)

    def _at(self, generation: int, service: str, row: int) -> Process | None:
        for process in self.processes:
            if (process.generation, process.service, process.row) == (generation, service, row):
                return process
        return None

    def _say(self, text: str, is_trouble: bool = False) -> None:
        self._actions.append(Say(text, is_trouble))


def backoff_seconds(crashes: int) -> float:
    """How long to wait after so many quick deaths in a row.

    >>> [backoff_seconds(n) for n in (0, 1, 2, 3, 4, 20)]
    [0.0, 0.0, 0.1, 0.2, 0.4, 5.0]
    """
    return 0.0 if crashes <= 1 else min(0.1 * 2.0 ** min(crashes - 2, 10), MAX_BACKOFF_SECONDS)


def last_sign(heartbeat: float, executing_since: float) -> float:
    """Since when a worker's loop has not turned, as far as its scoreboard row tells.

    Args:
        heartbeat: its last beat.
        executing_since: since when a task has the CPU; 0 if none has, and then it may just be
            waiting to beat again.
    """
    return max(heartbeat, executing_since) if executing_since else heartbeat + BEAT_SLACK_SECONDS
