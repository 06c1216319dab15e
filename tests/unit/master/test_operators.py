from __future__ import annotations

import os
import signal

import pytest

from gtask.config import Settings
from gtask.master.actions import Begin, Reply, Say, Signal
from gtask.master.change import Change
from gtask.master.messages import Connections
from gtask.master.molds import Molds
from gtask.master.operators import Operators
from gtask.master.plans import Plan
from gtask.master.roster import Roster
from gtask.master.signals import ReloadSignal, ScaleSignal, StopSignal
from gtask.master.status import Status
from gtask.master.stop import Stop

SETTINGS = Settings(file="worker.ini", stop_timeout=7)


class Caller:
    """A client of the control socket, that keeps its answer."""

    def __init__(self) -> None:
        self.is_closed = False
        self.answer: dict = {}

    def reply(self, **answer: object) -> None:
        self.answer = answer


class World:
    """A master without services."""

    def __init__(self) -> None:
        self.roster, self.change, self.stop = Roster(7), Change(), Stop(1)
        status = Status(self.roster, Molds())
        self.operators = Operators(self.roster, status, self.change, self.stop, is_daemon=True)
        self.caller = Caller()

    def ask(self, **request: object):
        return self.operators.answer(self.caller, request, SETTINGS, 10.0)

    def state(self) -> str:
        (reply,) = self.ask(command="status")
        assert isinstance(reply, Reply)
        return reply.answer["state"]

    def start(self) -> None:
        self.change.begun(1, 10.0, 60.0)
        self.change.loaded(1)
        self.change.progressed(10.0, is_up=True, has_taken_over=True, is_drainer_accepting=False)


def test_status():
    (reply,) = World().ask(command="status")
    assert isinstance(reply, Reply)
    assert 0 <= reply.answer["uptime_seconds"] < 60
    assert (
        reply.answer.items()
        >= {
            "ok": True,
            "pid": os.getpid(),
            "state": "starting",
            "is_daemon": True,
            "generation": 0,
            "file": "worker.ini",
            "stop_timeout": 7,
            "services": [],
        }.items()
    )


def test_states():
    world = World()
    assert world.state() == "starting"
    world.start()
    assert world.state() == "running"
    world.change.wanted(now=10.0, standing=1)
    assert world.state() == "reloading"
    world.change.stop()
    world.stop.wanted(signal.SIGTERM, 10.0)
    assert world.state() == "stopping"


def test_reload():
    world = World()
    world.start()
    assert world.ask(command="reload") == [Begin()]


def test_stop_is_as_by_term():
    assert World().ask(command="stop")[0] == Say("SIGTERM: draining")


def test_signals():
    world = World()
    assert world.operators.signalled(StopSignal(signal.SIGINT), 10.0)[0] == Say(
        "SIGINT: stopping now"
    )
    world.start()
    assert world.operators.signalled(ReloadSignal(), 10.0) == [Begin()]
    world.roster.loaded(1, {"T": Plan(2), "W": Plan(1)})
    text = "SIGTTIN: processes wanted: {'T': 3, 'W': 1}"
    assert world.operators.signalled(ScaleSignal("SIGTTIN", 1), 10.0) == [Say(text)]


def test_more_processes_than_have_rows_are_refused_with_a_line():
    world = World()
    world.roster.loaded(1, {"T": Plan(2, rows=8)})
    text = "SIGTTIN: processes wanted: {'T': 2}, as before: there are no rows for more"
    assert world.operators.signalled(ScaleSignal("SIGTTIN", 1), 10.0) == [Say(text)]


def test_connections_are_answered_when_all_workers_have():
    world = World()
    assert world.ask(command="connections") == []
    assert world.caller.answer == {}
    world.operators.finish_surveys(10.0)
    assert world.caller.answer == {"ok": True, "connections": [], "silent": []}


def test_workers_that_are_ready_are_asked_for_their_connections():
    world = World()
    world.roster.loaded(1, {"T": Plan(2)})
    world.roster.decide(10.0)
    for row in range(2):
        world.roster.spawned(1, "T", row, 4_000_000 + row, 10.0)
    world.roster.ready(4_000_001, 10.0)
    assert world.ask(command="connections") == [Signal(4_000_001, signal.SIGUSR2)]
    world.operators.add_connections(Connections(4_000_001, 1, [], first=True, last=True), 10.0)
    world.operators.finish_surveys(10.0)
    assert world.caller.answer == {"ok": True, "connections": [], "silent": []}


@pytest.mark.parametrize("command", ["stauts", 7, None])
def test_what_is_no_command(command: object):
    world = World()
    text = f"unknown command {command!r}"
    assert world.ask(command=command) == [Reply(world.caller, {"ok": False, "message": text})]
