"""A roster on a fake clock, for histories: no process is started here."""

from __future__ import annotations

from gtask.master.actions import Action, Say, Signal, Spawn
from gtask.master.plans import Plan
from gtask.master.roster import Roster
from gtask.master.slots import Phase

KILLED, EXIT_3, CLEAN = 9, 3 << 8, 0


class World:
    """A roster with a mold that forks at once and workers that do as the test says."""

    def __init__(self, stop_timeout: float = 10.0, **counts: int) -> None:
        self.now = 100.0
        self.roster = Roster(stop_timeout)
        self.pids = iter(range(1000, 100000))
        self.done: list[Action] = []
        if counts:
            self.load(1, **counts)

    def load(self, generation: int, hard_timeout: float = 0.0, **counts: int) -> None:
        plans = {name: Plan(count, hard_timeout) for name, count in counts.items()}
        self.roster.loaded(generation, plans)
        self.step()

    def step(self, seconds: float = 0.0) -> list[Action]:
        """Let time pass, decide, and fork what is asked for; returns the actions but log lines."""
        self.now += seconds
        actions = [each for each in self.roster.decide(self.now) if not isinstance(each, Say)]
        for action in actions:
            if isinstance(action, Spawn):
                self.roster.spawned(
                    action.generation, action.service, action.row, next(self.pids), self.now
                )
        self.done += actions
        return actions

    def boot(self) -> None:
        """All that boot are ready, and what they replace drains and ends."""
        for process in list(self.roster.processes):
            if process.phase == Phase.BOOTING:
                self.roster.ready(process.pid, self.now)

    def settle(self) -> None:
        """Boot, drain and replace until nothing happens any more."""
        for _ in range(1000):
            self.boot()
            for process in list(self.roster.processes):
                if process.phase == Phase.DRAINING:
                    self.roster.exited(process.pid, CLEAN, self.now)
            if not self.step():
                return
        raise AssertionError("does not settle")

    def die(self, service: str, worker_id: int, status: int = KILLED) -> None:
        process = next(
            each
            for each in self.roster.processes
            if (each.service, each.worker_id) == (service, worker_id)
        )
        self.roster.exited(process.pid, status, self.now)

    def running(self) -> list[tuple[int, str, int]]:
        return sorted(
            (each.generation, each.service, each.worker_id)
            for each in self.roster.processes
            if each.phase != Phase.DRAINING
        )


def signals(actions: list[Action]) -> list[int]:
    return [each.number for each in actions if isinstance(each, Signal)]


def spawned(actions: list[Action]) -> list[tuple[str, int, int]]:
    return [(each.service, each.worker_id, each.row) for each in actions if isinstance(each, Spawn)]
