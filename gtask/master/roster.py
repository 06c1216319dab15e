"""Who should be running: the master's decisions about workers, as data.

Facts come in by methods (a process was spawned, is ready, has ended, the operator wants to stop);
`decide` compares what runs with what should, and says what is to be done about it. No sockets,
processes, clocks or logs here: every moment is an argument, in seconds of a monotonic clock.

One slot is one worker id of one service. A slot has at most one process that is to stay; others in
it are kept until that one is ready, and drain then. So a reload, a recycled worker, a changed `count`
and a crash are all the same: something in a slot is missing or is too many.
"""

from __future__ import annotations

import math
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .actions import Abandon, Action, Dismiss, Halt, Say, Signal, Spawn
from .exits import describe_exit
from .slots import Phase, Plan, Process, Slot, Slots

QUICK_SECONDS = 1.0  # a process that lives shorter counts as crashing
BOOT_ATTEMPTS = 3  # that may fail in a row before a generation is given up
PAUSE_SECONDS = 2.0  # between two decisions: then it was us who slept
DUMP_SECONDS = 1.0  # from the dump of the stacks to the kill
NOW_SECONDS = 2.0  # to stop at once takes this long at most
KILL_GRACE_SECONDS = 0.5  # a worker keeps to its deadline by itself
KILL_AGAIN_SECONDS = 5.0


@dataclass
class _Generation:
    """One generation of workers: what it should be, and how its boot goes.

    Attributes:
        has_mold: it can fork more workers.
        failures: how many boots in a row failed, by service.
        served: the services that have had a ready worker.
    """

    number: int
    plans: Mapping[str, Plan]
    has_mold: bool = True
    failures: Counter[str] = field(default_factory=Counter)
    served: set[str] = field(default_factory=set)

    @property
    def serves_all(self) -> bool:
        """Each service has had a ready worker, so the code is known to run."""
        return self.served >= self.plans.keys()


class Roster:
    """All worker processes and what is to become of them.

    Args:
        stop_timeout: seconds a drain may take before the process is killed; may be changed.

    Attributes:
        restarts: how often a process of a service was replaced, by (service, reason).
        was_cut_off: a process was killed as it did not finish within `stop_timeout`.
    """

    def __init__(self, stop_timeout: float) -> None:
        self.stop_timeout = stop_timeout
        self.restarts: Counter[tuple[str, str]] = Counter()
        self.was_cut_off = False
        self.is_stopping = False
        self._slots = Slots()
        self._current = _Generation(0, {})
        self._previous: _Generation | None = None
        self._actions: list[Action] = []
        self._decided = math.inf
        self._awake_since = 0.0

    # -- what is known ------------------------------------------------------------------------

    @property
    def processes(self) -> list[Process]:
        """All that live or were asked for."""
        return self._slots.processes

    @property
    def generation(self) -> int:
        """The number of the generation that new workers belong to; 0 before the first."""
        return self._current.number

    @property
    def plans(self) -> Mapping[str, Plan]:
        """What each service should be."""
        return self._current.plans

    @property
    def is_up(self) -> bool:
        """Every slot is served by the current generation, or its process is known to crash."""
        current = self._current
        return (
            not self.is_stopping
            and current.number > 0
            and current.serves_all
            and all(slot.is_served(current.number) for _, _, slot in self._wanted())
        )

    @property
    def has_taken_over(self) -> bool:
        """`is_up`, and what is left of other generations drains."""
        return self.is_up and all(
            process.generation == self._current.number
            for process in self.processes
            if process.phase != Phase.DRAINING
        )

    def find(self, pid: int) -> Process | None:
        """The process with this id, if it is one of ours."""
        return self._slots.find(pid)

    # -- what happens -------------------------------------------------------------------------

    def loaded(self, generation: int, plans: Mapping[str, Plan]) -> None:
        """A mold is ready to fork; its generation takes over from the present one."""
        if self._current.number:
            self._previous = self._current
        self._current = _Generation(generation, plans)
        self._slots.forgive()

    def spawned(self, generation: int, service: str, row: int, pid: int) -> None:
        """The mold has forked the process asked for."""
        process = self._slots.at(generation, service, row)
        if process is None or process.pid:
            self._actions.append(Signal(pid, signal.SIGKILL))  # given up before it was there
            return
        self._slots.forked(process, pid)
        if process.phase == Phase.DRAINING:
            self._actions.append(Signal(pid, signal.SIGKILL))

    def ready(self, pid: int, now: float) -> None:
        """The worker accepts connections."""
        process = self.find(pid)
        if process is None or process.phase != Phase.BOOTING:
            return
        process.phase = Phase.READY
        process.since = process.last_sign = now
        if process.generation == self._current.number:
            self._current.served.add(process.service)
            self._current.failures[process.service] = 0

    def failed(self, pid: int, reason: str) -> None:
        """The worker says why it is about to end."""
        process = self.find(pid)
        if process is not None:
            process.failure = reason

    def not_spawned(self, generation: int, service: str, row: int, reason: str, now: float) -> None:
        """The mold could not fork the process asked for."""
        process = self._slots.at(generation, service, row)
        if process is not None and not process.pid:
            self._ended(process, reason, now)

    def recycle(self, pid: int, reason: str) -> None:
        """The worker has had its share and wants to be replaced."""
        process = self.find(pid)
        if process is not None and process.phase == Phase.READY and not process.recycled_for:
            process.recycled_for = reason

    def beat(self, pid: int, last_sign: float) -> None:
        """The worker's loop last turned at the moment `last_sign`, as its scoreboard row tells."""
        process = self.find(pid)
        if process is not None:
            process.last_sign = last_sign

    def exited(self, pid: int, status: int, now: float) -> None:
        """A child has been reaped; `status` is that of wait(2)."""
        process = self.find(pid)
        if process is not None:
            self._ended(process, process.killed_for or describe_exit(status), now)

    def mold_lost(self, generation: int, now: float) -> None:
        """The mold has ended: what it was still to fork will not come."""
        for each in (self._current, self._previous):
            if each is not None and each.number == generation:
                each.has_mold = False
        for process in list(self.processes):
            if process.generation == generation and not process.pid:
                self._slots.remove(process)
        if generation == self._current.number and self._can_go_back:
            self._abandon("the process that workers are forked from has died")

    def scale(self, delta: int) -> None:
        """TTIN and TTOU: so many processes more or fewer, never less than one.

        A service with a `count` of 1 stays single, as it may keep state in its process; unless it
        is the only one.
        """
        plans = dict(self._current.plans)
        for name, plan in plans.items():
            if plan.count > 1 or len(plans) == 1:
                plans[name] = Plan(max(1, plan.count + delta), plan.hard_timeout)
        self._current.plans = plans

    def drain(self, now: float) -> None:
        """Stop: let everything finish what it runs."""
        self.is_stopping = True
        for process in list(self.processes):
            self._drain(process, "stop", now)

    def hurry(self, now: float) -> None:
        """Stop now: finish nothing."""
        self._end_all(signal.SIGINT, now + NOW_SECONDS)

    def kill(self, now: float) -> None:
        """Stop without asking."""
        self._end_all(signal.SIGKILL, now + KILL_AGAIN_SECONDS)

    # -- what follows -------------------------------------------------------------------------

    def decide(self, now: float) -> list[Action]:
        """What is to be done now; call it after every fact, and at `wake_at` at the latest."""
        if now - self._decided > PAUSE_SECONDS:
            self._awake_since = now  # nobody could beat while the machine slept
        self._decided = now
        for process in list(self.processes):
            self._keep_deadline(process, now)
        if not self.is_stopping:
            self._fill_slots(now)
            self._empty_slots(now)
            self._dismiss_previous()
        actions, self._actions = self._actions, []
        return actions

    def wake_at(self, now: float) -> float:
        """When the next decision is due; `math.inf` if only facts can change anything."""
        moments = [process.deadline for process in self.processes]
        if self._current.has_mold and not self.is_stopping:
            tries = (slot.not_before for _, _, slot in self._wanted())
            moments += [moment for moment in tries if moment > now]
        return min(moments, default=math.inf)

    def _keep_deadline(self, process: Process, now: float) -> None:
        """Kill a process that is late, or whose loop is stuck."""
        if now >= process.deadline:
            if process.killed_for == "":
                process.killed_for = "not finished in time"
                self.was_cut_off = True
                self._warn(f"{process.name} ({process.pid}) did not finish in time: killed")
            self._signal(process, signal.SIGKILL, now + KILL_AGAIN_SECONDS)
        elif process.killed_for == "" and process.phase != Phase.BOOTING:
            stuck = now - max(process.last_sign, self._awake_since)
            if stuck > self._hard_timeout(process):
                process.killed_for = "hard_timeout"
                self._warn(f"{process.name} ({process.pid}) is stuck for {stuck:.1f} s: killed")
                self._signal(process, signal.SIGABRT, now + DUMP_SECONDS)

    def _hard_timeout(self, process: Process) -> float:
        """Seconds for which its loop may be stuck; infinite without a limit."""
        plan = self.plans.get(process.service)
        return plan.hard_timeout if plan is not None and plan.hard_timeout else math.inf

    def _fill_slots(self, now: float) -> None:
        current = self._current
        if not current.has_mold:
            return
        for service, plan in current.plans.items():
            slots = [self._slots[service, worker_id] for worker_id in range(plan.count)]
            # How many may boot beside those that they replace.
            surge = max(2, plan.count // 4) - sum(slot.has_booting_successor for slot in slots)
            for worker_id, slot in enumerate(slots):
                if now < slot.not_before or slot.staying(current.number) is not None:
                    continue
                if slot.processes:
                    if surge <= 0:
                        continue
                    surge -= 1
                self._spawn(service, worker_id, now)

    def _empty_slots(self, now: float) -> None:
        if not self._current.serves_all:
            return  # the old ones stay until we know that the new ones can boot
        for service, worker_id, slot in self._slots.items():
            is_wanted = service in self.plans and worker_id < self.plans[service].count
            successor = slot.staying(self.generation) if is_wanted else None
            if is_wanted and (successor is None or successor.phase != Phase.READY):
                continue
            for process in [each for each in slot.processes if each is not successor]:
                is_old = process.generation != self.generation
                self._drain(process, process.recycled_for or ("reload" if is_old else "count"), now)

    def _dismiss_previous(self) -> None:
        """A generation that has been replaced needs its mold no more."""
        if self._previous is not None and self.has_taken_over:
            self._actions.append(Dismiss(self._previous.number))
            self._previous = None

    def _spawn(self, service: str, worker_id: int, now: float) -> None:
        process = self._slots.add(self.generation, service, worker_id, now)
        self._actions.append(Spawn(self.generation, service, worker_id, process.row))

    # -- how a process ends -------------------------------------------------------------------

    def _drain(self, process: Process, reason: str, now: float) -> None:
        if process.phase == Phase.DRAINING:
            return
        if reason == "reload" and process.phase == Phase.READY:
            self._actions.append(Signal(process.pid, signal.SIGHUP))  # it calls on_worker_reload
        if reason not in ("stop", "count"):
            self.restarts[process.service, reason.partition(":")[0]] += 1
        if reason not in ("stop", "reload"):
            self._actions.append(Say(f"{process.name} ({process.pid}) is to go: {reason}"))
        self._slots.vacate(process)
        self._signal(process, signal.SIGTERM, now + self.stop_timeout + KILL_GRACE_SECONDS)

    def _end_all(self, number: int, deadline: float) -> None:
        """Send all processes the signal of a stop that waits for no task."""
        self.is_stopping = True
        for process in self.processes:
            self._slots.vacate(process)
            process.killed_for = "stop"
            self._signal(process, number, deadline)

    def _signal(self, process: Process, number: int, deadline: float) -> None:
        """Send a signal to it; KILL follows at the deadline."""
        process.deadline = deadline
        if process.pid:
            self._actions.append(Signal(process.pid, number))

    def _ended(self, process: Process, reason: str, now: float) -> None:
        """The process has ended, or never began."""
        phase = process.phase
        self._slots.remove(process)
        if phase != Phase.DRAINING:
            self._ended_unasked(process, phase == Phase.READY, process.failure or reason, now)
        elif not process.killed_for and reason != "exit 0":
            self.was_cut_off = True
            self._warn(f"{process.name} ({process.pid}) ended before it had drained: {reason}")

    def _ended_unasked(self, process: Process, has_booted: bool, reason: str, now: float) -> None:
        self.restarts[process.service, reason if has_booted else "could not boot"] += 1
        slot = self._slots[process.service, process.worker_id]
        is_quick = not has_booted or now - process.since < QUICK_SECONDS
        wait = slot.has_died(is_quick=is_quick, now=now)
        then = f"; next try in {wait:.1f} s" if wait else ""
        what = "has ended" if has_booted else "could not boot"
        self._warn(f"{process.name} ({process.pid}) {what}: {reason}{then}")
        if not has_booted and process.generation == self.generation:
            self._count_failure(process.service, reason)

    def _count_failure(self, service: str, reason: str) -> None:
        current = self._current
        current.failures[service] += 1
        if current.failures[service] < min(current.plans[service].count, BOOT_ATTEMPTS):
            return
        reason = f"{service} cannot start: {reason}"
        if self._can_go_back:
            self._abandon(reason)
        elif service not in current.served:
            self._actions.append(Halt(reason))

    @property
    def _can_go_back(self) -> bool:
        """The previous generation has not been dismissed, and can fork workers."""
        return self._previous is not None and self._previous.has_mold

    def _abandon(self, reason: str) -> None:
        """Back to the previous generation."""
        assert self._previous is not None
        given_up, self._current, self._previous = self._current, self._previous, None
        self._slots.forgive()
        self._actions.append(Abandon(given_up.number, reason))

    def _wanted(self) -> Iterator[tuple[str, int, Slot]]:
        return self._slots.wanted(self.plans)

    def _warn(self, text: str) -> None:
        self._actions.append(Say(text, is_trouble=True))
