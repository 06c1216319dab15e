"""How worker processes are ended: by which signals, how long they may take, and when by force.

Like the roster, whose part it is, it asks for actions and does nothing itself. Moments are seconds
of a monotonic clock.
"""

from __future__ import annotations

import signal
from collections import Counter

from .actions import Action, Say, Signal
from .slots import DUMP_SECONDS, LATE_SECONDS, Phase, Process, Slots, too_late

NOW_SECONDS = 2.0  # to stop at once takes this long at most
BOOT_SECONDS = 0.5  # to leave off booting
KILL_GRACE_SECONDS = 0.5  # a worker keeps to its deadline by itself
KILL_AGAIN_SECONDS = 5.0


class Endings:
    """The drains, dumps and kills of all processes.

    Args:
        slots: the processes.
        actions: to which is added what is to be done.

    Attributes:
        stop_timeout: seconds a drain may take before the process is killed.
        boot_timeout: seconds that a process may take to become ready; 0: any time.
        is_stopping: all processes are to end.
        was_cut_off: in this stop, a process ended before it had finished its tasks.
        restarts: how often a process of a service was replaced, by (service, reason).
    """

    def __init__(self, slots: Slots, actions: list[Action], stop_timeout: float) -> None:
        self.stop_timeout = stop_timeout
        self.boot_timeout = 0.0
        self.is_stopping = False
        self.was_cut_off = False
        self.restarts: Counter[tuple[str, str]] = Counter()
        self._slots = slots
        self._actions = actions

    def drain(self, process: Process, reason: str, now: float, *, has_heirs: bool) -> None:
        """Let it finish what it runs.

        Args:
            has_heirs: others accept at its address: it leaves to them what nobody has accepted.
        """
        if process.phase == Phase.DRAINING:
            return
        is_ready = process.phase == Phase.READY
        if is_ready and reason == "reload":
            self._actions.append(Signal(process.pid, signal.SIGHUP))  # it calls on_worker_reload
        if is_ready and has_heirs:
            self._actions.append(Signal(process.pid, signal.SIGURG))
        if reason not in ("stop", "count"):
            self.restarts[process.service, reason.partition(":")[0]] += 1
        if reason not in ("stop", "reload"):
            self._actions.append(Say(f"{process.name} ({process.pid}) is to go: {reason}"))
        self._slots.vacate(process)
        seconds = self.stop_timeout + KILL_GRACE_SECONDS if is_ready else BOOT_SECONDS
        self._signal(process, signal.SIGTERM, now + seconds)

    def leave_off(self, process: Process, now: float) -> None:
        """It was told to drain before it was forked."""
        self._signal(process, signal.SIGTERM, now + BOOT_SECONDS)

    def is_ready_after_all(self, process: Process, now: float) -> None:
        """It was taken for booting when it was told to drain: it has the time of all others."""
        process.was_ready = True
        process.deadline = now + self.stop_timeout + KILL_GRACE_SECONDS

    def hurry(self, now: float) -> None:
        """End all, who finish nothing."""
        self._end_all(signal.SIGINT, now + NOW_SECONDS)

    def kill(self, now: float) -> None:
        """End all without asking."""
        self._end_all(signal.SIGKILL, now + KILL_AGAIN_SECONDS)

    def kill_now(self, pid: int) -> None:
        """Kill a process that was given up, and forgotten, before it was forked."""
        self._actions.append(Signal(pid, signal.SIGKILL))

    def keep_deadline(
        self, process: Process, now: float, stuck: float, hard_timeout: float
    ) -> None:
        """End a process that is late, or whose loop is stuck.

        Args:
            stuck: seconds for which it has not given a sign of life.
            hard_timeout: seconds for which it may be; infinite without a limit.
        """
        if now >= process.deadline:
            if process.killed_for == "":
                self._is_late(process)
            self._signal(process, signal.SIGKILL, now + KILL_AGAIN_SECONDS)
        elif process.killed_for != "" or not process.pid:
            pass
        elif process.phase == Phase.BOOTING:
            if self.boot_timeout and stuck > self.boot_timeout + LATE_SECONDS:
                process.failure = process.failure or too_late(self.boot_timeout)
                self._dump(process, "boot_timeout", f"is not ready after {stuck:.1f} s", now)
        elif stuck > hard_timeout:
            self._lose(process)
            self._dump(process, "hard_timeout", f"is stuck for {stuck:.1f} s", now)

    def ended(self, process: Process, reason: str) -> None:
        """One that drained has ended."""
        if process.was_ready and not process.killed_for and reason != "exit 0":
            self._lose(process)
            self._warn(f"{process.name} ({process.pid}) ended before it had drained: {reason}")

    def _is_late(self, process: Process) -> None:
        process.killed_for = "not finished in time"
        if process.was_ready:
            self._lose(process)
            self._warn(f"{process.name} ({process.pid}) did not finish in time: killed")

    def _lose(self, process: Process) -> None:
        """It has tasks, perhaps, which are lost."""
        if self.is_stopping and process.phase == Phase.DRAINING:
            self.was_cut_off = True

    def _dump(self, process: Process, why: str, what: str, now: float) -> None:
        """Have it write its stacks to the log; KILL follows."""
        process.killed_for = why
        self._warn(f"{process.name} ({process.pid}) {what}: killed")
        self._signal(process, signal.SIGABRT, now + DUMP_SECONDS)

    def _end_all(self, number: int, deadline: float) -> None:
        """Send all processes the signal of a stop that waits for no task."""
        self.is_stopping = True
        for process in self._slots.processes:
            self._slots.vacate(process)
            process.killed_for = "stop"
            self._signal(process, number, deadline)

    def _signal(self, process: Process, number: int, deadline: float) -> None:
        """Send a signal to it; KILL follows at the deadline."""
        process.deadline = deadline
        if process.pid:
            self._actions.append(Signal(process.pid, number))

    def _warn(self, text: str) -> None:
        self._actions.append(Say(text, is_trouble=True))
