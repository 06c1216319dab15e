"""What operators ask, by signals or on the control socket, and the answers.

That is: reload, stop, scale; status, connections.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

from ..config import Settings
from .actions import Action, Reply, Say, Signal
from .change import Change
from .control import Client
from .messages import Connections, in_one_line
from .roster import Roster
from .signals import ReloadSignal, Request, ScaleSignal, StopSignal
from .slots import Phase
from .status import Status
from .stop import Stop
from .survey import Survey


class Operators:
    """Answers at once, or when a reload, a stop or a survey of the workers is over.

    Args:
        is_daemon: how the master runs, for a `restart` to run it again.
        stores: describes the stores.
    """

    def __init__(
        self,
        roster: Roster,
        status: Status,
        change: Change,
        stop: Stop,
        *,
        is_daemon: bool,
        stores: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._roster = roster
        self._status = status
        self._change = change
        self._stop = stop
        self._stores = stores
        self._is_daemon = is_daemon
        self._started = time.time()
        self._surveys: list[Survey] = []

    def signalled(self, request: Request, now: float) -> list[Action]:
        """What is to be done about a signal; `now` is of the monotonic clock, in seconds."""
        match request:
            case ReloadSignal():
                return self._change.wanted(now=now, standing=self._roster.standing)
            case StopSignal(number):
                return self._stop.wanted(number, now)
            case ScaleSignal(name, delta):
                before = self._counts()
                self._roster.scale(delta)
                counts = self._counts()
                more = ", as before: there are no rows for more" if counts == before else ""
                return [Say(f"{name}: processes wanted: {counts}{more if delta > 0 else ''}")]

    def _counts(self) -> dict[str, int]:
        return {service: plan.count for service, plan in self._roster.plans.items()}

    def answer(
        self, client: Client, request: dict[str, Any], settings: Settings, now: float
    ) -> list[Action]:
        """What is to be done about a request on the control socket."""
        match request.get("command"):
            case "status":
                return [Reply(client, {"ok": True, **self._describe(settings, now)})]
            case "connections":
                ready = [each for each in self._roster.processes if each.phase == Phase.READY]
                self._surveys.append(Survey(client, ready, now))
                return [Signal(each.pid, signal.SIGUSR2) for each in ready]
            case "reload":
                return self._change.wanted(client, now=now, standing=self._roster.standing)
            case "stop":
                return self._stop.wanted(signal.SIGTERM, now, client)
            case command:
                message = f"unknown command {in_one_line(repr(command))}"
                return [Reply(client, {"ok": False, "message": message})]

    def add_connections(self, part: Connections, now: float) -> None:
        """A part of what a worker says to a survey."""
        for survey in self._surveys:
            survey.add(part, now)

    def finish_surveys(self, now: float) -> None:
        """Answer those who asked for connections, if all workers have or it is too late."""
        self._surveys = [survey for survey in self._surveys if not survey.finish(now)]

    def _describe(self, settings: Settings, now: float) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "state": self._state(),
            "is_daemon": self._is_daemon,
            "started": round(self._started, 3),
            "uptime_seconds": round(time.time() - self._started, 1),
            "generation": self._roster.generation,
            "file": settings.file,
            "stop_timeout": settings.stop_timeout,
            "services": self._status.services(now),
            "stores": self._stores(),
        }

    def _state(self) -> str:
        if self._stop.is_under_way:
            return "stopping"
        if not self._change.is_under_way:
            return "running"
        return "reloading" if self._change.has_started else "starting"
