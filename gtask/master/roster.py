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
from collections import Counter
from collections.abc import Iterator, Mapping

from .actions import Abandon, Action, Dismiss, Halt, Say, Spawn
from .endings import Endings
from .exits import describe_exit
from .plans import Plan, PlannedGeneration
from .slots import LATE_SECONDS, Phase, Process, Slot, Slots

QUICK_SECONDS = 1.0  # a process that lives shorter counts as crashing
BOOT_ATTEMPTS = 3  # that may fail in a row before a generation is given up
PAUSE_SECONDS = 2.0  # between two decisions: then it was us who slept
FULL_SECONDS = 1.0  # until a spawn that found no row is tried again


class Roster:
    """All worker processes and what is to become of them.

    Args:
        stop_timeout: seconds a drain may take before the process is killed.

    Attributes:
        endings: how processes are ended, and its time limits.
    """

    def __init__(self, stop_timeout: float) -> None:
        self._slots = Slots()
        self._current = PlannedGeneration(0, {})
        self._previous: PlannedGeneration | None = None
        self._actions: list[Action] = []
        self.endings = Endings(self._slots, self._actions, stop_timeout)
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

    @property
    def standing(self) -> int:
        """The generation that serves if nothing becomes of what is under way now."""
        current, previous = self._current, self._previous
        if current.serves_all or previous is None or not previous.has_mold:
            return current.number
        return previous.number

    @property
    def is_stopping(self) -> bool:
        return self.endings.is_stopping

    @property
    def was_cut_off(self) -> bool:
        """In this stop, a process ended before it had finished its tasks."""
        return self.endings.was_cut_off

    @property
    def restarts(self) -> Counter[tuple[str, str]]:
        """How often a process of a service was replaced, by (service, reason)."""
        return self.endings.restarts

    def find(self, pid: int) -> Process | None:
        """The process with this id, if it is one of ours."""
        return self._slots.find(pid)

    # -- what happens -------------------------------------------------------------------------

    def loaded(self, generation: int, plans: Mapping[str, Plan]) -> None:
        """A mold is ready to fork; its generation takes over from the present one."""
        if self._previous is not None:
            self._actions.append(Dismiss(self._previous.number))
        if self._current.number:
            self._previous = self._current
        self._current = PlannedGeneration(generation, plans)
        self._slots.forgive()

    def withdraw(self) -> None:
        """The generation that takes over is to be replaced before it has: back to `standing`."""
        if self.standing != self._current.number:
            self._go_back()

    def spawned(self, generation: int, service: str, row: int, pid: int, now: float) -> bool:
        """The mold has forked the process asked for; False if that is another one, known already."""
        if self.find(pid) is not None:
            return False
        process = self._slots.at(generation, service, row)
        if process is None or process.pid:
            self.endings.kill_now(pid)  # given up before it was there
            return True
        for each in (self._current, self._previous):
            if each is not None and each.number == generation:
                each.forked_at = now
        self._slots.forked(process, pid, now)
        if process.phase == Phase.DRAINING:
            self.endings.leave_off(process, now)
        return True

    def ready(self, pid: int, now: float) -> None:
        """The worker accepts connections."""
        process = self.find(pid)
        if process is None or process.was_ready or process.killed_for:
            return
        if process.phase == Phase.DRAINING:
            self.endings.is_ready_after_all(process, now)
            return
        process.phase = Phase.READY
        process.was_ready = True
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
        """TTIN and TTOU: so many processes more or fewer, as far as the scoreboard has rows.

        A service with a `count` of 1 stays single, as it may keep state in its process; unless it
        is the only one.
        """
        plans = dict(self._current.plans)
        for name, plan in plans.items():
            if plan.count > 1 or len(plans) == 1:
                plans[name] = plan.resized(delta)
        self._current.plans = plans

    def drain(self, now: float) -> None:
        """Stop: let everything finish what it runs."""
        self.endings.is_stopping = True
        for process in list(self.processes):
            self.endings.drain(process, "stop", now, has_heirs=False)

    def hurry(self, now: float) -> None:
        """Stop now: finish nothing."""
        self.endings.hurry(now)

    def kill(self, now: float) -> None:
        """Stop without asking."""
        self.endings.kill(now)

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
            self._refill_previous(now)
            self._empty_slots(now)
            self._dismiss_previous()
        actions = list(self._actions)
        self._actions.clear()
        return actions

    def wake_at(self, now: float) -> float:
        """When the next decision is due; `math.inf` if only facts can change anything."""
        moments = [process.deadline for process in self.processes]
        if self._current.has_mold and not self.is_stopping:
            tries = (slot.not_before for _, _, slot in self._wanted())
            moments += [moment for moment in tries if moment > now]
        return min(moments, default=math.inf)

    def _keep_deadline(self, process: Process, now: float) -> None:
        """End a process that is late or stuck; or its mold, which does not fork it."""
        sign = process.since if process.phase == Phase.BOOTING else process.last_sign
        stuck = now - max(sign, self._awake_since)
        self.endings.keep_deadline(process, now, stuck, self._hard_timeout(process))
        limit = self.endings.boot_timeout
        if not process.pid and limit and stuck > limit + LATE_SECONDS:
            self._end_stuck_mold(process.generation, now)

    def _hard_timeout(self, process: Process) -> float:
        """Seconds for which its loop may be stuck; infinite without a limit."""
        plan = self.plans.get(process.service)
        return plan.hard_timeout if plan is not None and plan.hard_timeout else math.inf

    def _end_stuck_mold(self, generation: int, now: float) -> None:
        for each in (self._current, self._previous):
            if each is None or each.number != generation or not each.has_mold:
                continue
            if now - each.forked_at > self.endings.boot_timeout + LATE_SECONDS:
                each.has_mold = False
                self._warn(f"the process that forks workers of generation {generation} is stuck")
                self._actions.append(Dismiss(generation))

    # -- who is missing, and who is too many --------------------------------------------------

    def _fill_slots(self, now: float) -> None:
        current = self._current
        if not current.has_mold:
            return
        for service, plan in current.plans.items():
            slots = [self._slots[service, worker_id] for worker_id in range(plan.count)]
            booting = sum(slot.has_booting_successor for slot in slots)
            surge = plan.surge - booting
            room = plan.most_draining - self._slots.draining(current.number, service) - booting
            for worker_id, slot in enumerate(slots):
                if now < slot.not_before or slot.staying(current.number) is not None:
                    continue
                if slot.processes:
                    is_recycled = slot.processes[-1].generation == current.number
                    if surge <= 0 or (is_recycled and room <= 0):
                        continue
                    surge -= 1
                    room -= is_recycled
                self._spawn(current, service, worker_id, now)

    def _refill_previous(self, now: float) -> None:
        """Replace what dies of the generation that serves while it is not sure that the new can."""
        previous = self._previous
        if previous is None or not previous.has_mold or self._current.serves_all:
            return
        for service, worker_id, slot in self._slots.wanted(previous.plans):
            is_there = any(each.generation == previous.number for each in slot.processes)
            if not is_there and now >= slot.not_before and service not in self._current.served:
                self._spawn(previous, service, worker_id, now)

    def _empty_slots(self, now: float) -> None:
        if not self._current.serves_all:
            return  # the old ones stay until we know that the new ones can boot
        for service, worker_id, slot in self._slots.items():
            is_wanted = service in self.plans and worker_id < self.plans[service].count
            successor = slot.staying(self.generation) if is_wanted else None
            if is_wanted and (successor is None or successor.phase != Phase.READY):
                continue
            for process in [each for each in slot.processes if each is not successor]:
                self._replace(process, now)

    def _replace(self, process: Process, now: float) -> None:
        """Let a process drain whose place is taken, or is no place any more."""
        is_old = process.generation != self.generation
        reason = process.recycled_for or ("reload" if is_old else "count")
        if reason == "count":
            draining = self._slots.draining(self.generation, process.service)
            if draining >= self.plans[process.service].most_draining:
                return  # the first of those that drain has to end before
        has_heirs = any(plan.place == process.place for plan in self.plans.values())
        self.endings.drain(process, reason, now, has_heirs=has_heirs)

    def _dismiss_previous(self) -> None:
        """A generation that has been replaced needs its mold no more."""
        if self._previous is not None and self.has_taken_over:
            self._actions.append(Dismiss(self._previous.number))
            self._previous = None

    def _spawn(self, of: PlannedGeneration, service: str, worker_id: int, now: float) -> None:
        process = self._slots.add(of.number, service, worker_id, of.plans[service], now)
        if process is None:
            self._slots[service, worker_id].not_before = now + FULL_SECONDS
            self._warn(f"{service} {worker_id} has to wait: {service} has no row left for it")
            return
        self._actions.append(Spawn(of.number, service, worker_id, process.row))

    # -- how a process ends -------------------------------------------------------------------

    def _ended(self, process: Process, reason: str, now: float) -> None:
        """The process has ended, or never began."""
        phase = process.phase
        self._slots.remove(process)
        if phase == Phase.DRAINING:
            self.endings.ended(process, reason)
        else:
            self._ended_unasked(process, phase == Phase.READY, process.failure or reason, now)

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
        self._actions.append(Abandon(self._go_back(), reason))

    def _go_back(self) -> int:
        """To the previous generation; returns which one was given up."""
        assert self._previous is not None
        given_up, self._current, self._previous = self._current, self._previous, None
        self._slots.forgive()
        return given_up.number

    def _wanted(self) -> Iterator[tuple[str, int, Slot]]:
        return self._slots.wanted(self.plans)

    def _warn(self, text: str) -> None:
        self._actions.append(Say(text, is_trouble=True))
