"""The process in front of several molds: the test is the master, and says what a mold does."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator

import pytest
import ujson

from gtask import native
from gtask.config import parse_settings
from gtask.generation import Generation
from gtask.scoreboard import Scoreboard
from gtask.server.front import Front
from gtask.server.part import Part

from ...support.wait import SLOWNESS

INI = """
[worker:A]
listen = text://127.0.0.1:1
tasks = x
user = nobody
[worker:B]
listen = text://127.0.0.1:2
tasks = x
[worker:C]
listen = text://127.0.0.1:3
tasks = x
user = nobody
"""
OWNERS = {("nobody", ""), ("", "")}


class World:
    """A front in a process of its own."""

    def __init__(self, run: Callable[[Part], int]) -> None:
        self.ours, theirs = native.seqpacket_pair()
        self.ours.settimeout(10 * SLOWNESS)
        generation = Generation(
            7,
            parse_settings(INI),
            {name: [] for name in "ABC"},
            {name: Scoreboard(1) for name in "ABC"},
            theirs,
            theirs,
            os.getpid(),
        )
        self.pid = os.fork()
        if self.pid == 0:
            self.ours.close()
            code = 99
            try:
                code = Front(generation, OWNERS, run).run()
            finally:
                os._exit(code)
        theirs.close()

    def heard(self) -> dict:
        return ujson.loads(self.ours.recv(65536))

    def ended(self) -> int:
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        self.ours.close()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


@pytest.fixture
def make() -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(run: Callable[[Part], int]) -> World:
        made.append(World(run))
        return made[-1]

    yield make
    for world in made:
        world.close()


def names(part: Part) -> list[str]:
    return [each.name for each in part.generation.settings.services]


def repeat(part: Part) -> int:
    """Load, and report each request with who has got it."""
    part.tell_loaded({name: [f"of {name}"] for name in names(part)})
    while request := part.orders.recv(65536):
        part.report(**ujson.loads(request), got_by=names(part))
    return 0


def test_all_have_loaded_when_each_has_and_requests_go_to_whose_they_are(make):
    world = make(repeat)
    functions = {name: [f"of {name}"] for name in "ABC"}
    assert world.heard() == {"event": "loaded", "functions": functions}
    for service, group in (("A", ["A", "C"]), ("B", ["B"]), ("C", ["A", "C"])):
        world.ours.send(ujson.dumps({"event": "spawn", "service": service}).encode())
        assert world.heard() == {"event": "spawn", "service": service, "got_by": group}
    world.ours.send(b'{"event":"follow_log"}')
    assert sorted(world.heard()["got_by"] for _ in range(2)) == [["A", "C"], ["B"]]
    world.ours.close()
    assert world.ended() == 0


def test_what_is_wrong_is_told_of_all(make):
    def run(part: Part) -> int:
        part.tell_not_loaded([f"wrong in {name}" for name in names(part)], 78)
        return 78

    world = make(run)
    problems = ["wrong in B", "wrong in A", "wrong in C"]
    assert world.heard() == {"event": "failed", "problems": problems, "code": 78}
    assert world.ended() == 78


def test_one_that_dies_while_it_loads(make):
    world = make(lambda part: repeat(part) if "B" in names(part) else os._exit(3))
    assert world.heard()["problems"] == ["the process that loads the code has ended"]
    assert world.ended() == 1


def test_one_that_dies_later_ends_all(make):
    def run(part: Part) -> int:
        part.tell_loaded({name: [] for name in names(part)})
        if "B" in names(part):
            part.orders.recv(65536)
            return 3
        signal.pause()
        return 0

    world = make(run)
    assert world.heard()["event"] == "loaded"
    world.ours.send(ujson.dumps({"event": "spawn", "service": "B"}).encode())
    assert world.ended() == 0
    assert world.ours.recv(1) == b"", "nobody has the channel any more"


def test_nobody_outlives_it(make):
    def run(part: Part) -> int:
        part.tell_loaded({"pid": [str(os.getpid())]})
        signal.pause()
        return 0

    world = make(run)
    world.heard()
    os.kill(world.pid, signal.SIGKILL)
    world.ended()
    assert world.ours.recv(1) == b""
    assert isinstance(world.ours, socket.socket)
