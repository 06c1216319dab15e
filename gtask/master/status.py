"""What `status` shows, read from the scoreboards and /proc: no worker is asked."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

from .. import scoreboard as board
from ..process import resident_bytes
from ..scoreboard import Scoreboard, WorkerState
from .molds import Mold
from .roster import Roster
from .slots import Phase, Process

RATE_SECONDS = 5.0
BEAT_SLACK_SECONDS = 1.0  # between two heartbeats
COUNTERS = {
    "done": board.DONE,
    "failed": board.FAILED,
    "accepted": board.ACCEPTED,
    "refused": board.REFUSED,
    "abandoned": board.ABANDONED,
}
MEGABYTE = 1048576


class Rates:
    """How many tasks a second each process did lately; `sample` it about every second."""

    def __init__(self) -> None:
        self._samples: dict[int, deque[tuple[float, int]]] = {}

    def sample(self, done: dict[int, int], now: float) -> None:
        """Remember what each process id has done so far."""
        self._samples = {pid: self._samples.get(pid) or deque() for pid in done}
        for pid, count in done.items():
            samples = self._samples[pid]
            samples.append((now, count))
            while now - samples[0][0] > RATE_SECONDS:
                samples.popleft()

    def rate(self, pid: int, done: int, now: float) -> float:
        samples = self._samples.get(pid)
        if not samples or now <= samples[0][0]:
            return 0.0
        return round(max(0, done - samples[0][1]) / (now - samples[0][0]), 1)


class Status:
    """The figures of all processes.

    Args:
        roster: what runs.
        molds: the generations, by number.
    """

    def __init__(self, roster: Roster, molds: Mapping[int, Mold]) -> None:
        self._roster = roster
        self._molds = molds
        self._rates = Rates()
        self._ended: Counter[tuple[str, str]] = Counter()

    def cell(self, process: Process, cell: int) -> int:
        """An integer of the process's row."""
        return self._board(process).ints[process.row * board.CELLS + cell]

    def last_sign(self, process: Process) -> float:
        """When its loop last turned, as far as we can tell."""
        floats = self._board(process).floats
        base = process.row * board.CELLS
        is_executing = self.cell(process, board.EXECUTING)
        since = floats[base + board.EXECUTING_SINCE] if is_executing else 0.0
        return last_sign(floats[base + board.HEARTBEAT], since)

    @property
    def is_drainer_accepting(self) -> bool:
        """A worker that is to drain has not closed its listening socket yet."""
        return any(
            process.phase == Phase.DRAINING and self.cell(process, board.STATE) == WorkerState.READY
            for process in self._roster.processes
        )

    def turning(self, since: float) -> set[str]:
        """The services with a ready worker whose loop has turned since that moment."""
        return {
            process.service
            for process in self._roster.processes
            if process.phase == Phase.READY and process.last_sign > since
        }

    def sample(self, now: float) -> None:
        """To be called about every second."""
        done = {
            each.pid: self.cell(each, board.DONE) for each in self._roster.processes if each.pid
        }
        self._rates.sample(done, now)

    def ended(self, process: Process) -> None:
        """Add what a process did to its service's sums, and give its row back."""
        for name, cell in COUNTERS.items():
            self._ended[process.service, name] += self.cell(process, cell)
        self._board(process).clear(process.row)

    def services(self, now: float) -> list[dict[str, Any]]:
        """All services, with the addresses that they listen on."""
        plans = self._roster.plans
        mold = self._molds[self._roster.generation] if plans else None
        services = () if mold is None else mold.settings.services
        return [
            {
                "name": service.name,
                "listen": mold.place(service) if mold is not None else "",
                "count": plans[service.name].count,
            }
            | self.service(service.name, now)
            for service in services
            if service.name in plans
        ]

    def service(self, name: str, now: float) -> dict[str, Any]:
        """A service and its processes, as `status --json` shows them; seconds and megabytes."""
        processes = [
            self._process(each, now)
            for each in self._roster.processes
            if each.service == name and each.pid
        ]
        processes.sort(key=lambda each: (each["id"], each["generation"]))
        figures: dict[str, Any] = {
            key: sum(each[key] for each in processes) for key in ("connections", "running")
        }
        for key in COUNTERS:
            figures[key] = self._ended[name, key] + sum(each[key] for each in processes)
        for key in ("memory_mb", "qps"):
            figures[key] = round(sum(each[key] for each in processes), 1)
        restarts = {
            reason: count
            for (service, reason), count in self._roster.restarts.items()
            if service == name
        }
        return {**figures, "restarts": restarts, "processes": processes}

    def summary(self) -> str:
        """One line for systemd."""
        ready = [each for each in self._roster.processes if each.phase == Phase.READY]
        connections = sum(self.cell(each, board.CONNECTIONS) for each in ready)
        running = sum(self.cell(each, board.RUNNING) for each in ready)
        return f"{len(ready)} workers, {connections} connections, {running} tasks running"

    def _process(self, process: Process, now: float) -> dict[str, Any]:
        scoreboard = self._board(process)
        ints, floats, base = scoreboard.ints, scoreboard.floats, process.row * board.CELLS
        functions = self._molds[process.generation].functions.get(process.service, ())
        function, since = "", now
        if number := ints[base + board.EXECUTING]:
            function, since = _name(functions, number), floats[base + board.EXECUTING_SINCE]
        elif number := ints[base + board.OLDEST]:
            function, since = _name(functions, number), floats[base + board.OLDEST_SINCE]
        heartbeat = floats[base + board.HEARTBEAT]
        started = floats[base + board.STARTED] or process.since
        return {
            "pid": process.pid,
            "id": process.worker_id,
            "generation": process.generation,
            "state": process.phase.value,
            "memory_mb": round(resident_bytes(process.pid) / MEGABYTE, 1),
            "uptime_seconds": round(now - started, 1),
            "silent_seconds": round(now - heartbeat, 1) if heartbeat else 0.0,
            "connections": ints[base + board.CONNECTIONS],
            # A task that has not blocked yet is counted when it does.
            "running": max(ints[base + board.RUNNING], int(ints[base + board.EXECUTING] > 0)),
            **{name: ints[base + cell] for name, cell in COUNTERS.items()},
            "threads": ints[base + board.THREADS],
            "stuck_threads": ints[base + board.STUCK],
            "qps": self._rates.rate(process.pid, ints[base + board.DONE], now),
            "function": function,
            "busy_seconds": round(max(0.0, now - since), 1),
        }

    def _board(self, process: Process) -> Scoreboard:
        return self._molds[process.generation].scoreboards[process.service]


def last_sign(heartbeat: float, executing_since: float) -> float:
    """Since when a worker's loop may not have turned, as far as its scoreboard row tells.

    All are moments of the monotonic clock, in seconds.

    Args:
        heartbeat: its last beat.
        executing_since: since when a task has the CPU; 0 if none has, and then the loop may just be
            waiting for its next beat.
    """
    return max(heartbeat, executing_since) if executing_since else heartbeat + BEAT_SLACK_SECONDS


def _name(functions: Sequence[str], number: int) -> str:
    return functions[number - 1] if 0 < number <= len(functions) else f"function {number}"
