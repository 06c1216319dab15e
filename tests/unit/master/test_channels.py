from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings, Settings
from gtask.generation import Generation
from gtask.master.channels import DEAF_SECONDS, Channels
from gtask.master.molds import Molds

from ...support.wait import wait_until

SETTINGS = Settings(
    services=(ServiceSettings(name="T", listen=parse_address("text://127.0.0.1:0")),)
)


class World:
    """A mold that waits, and the loop of its master."""

    def __init__(self, start_mold) -> None:
        self.poll, self.molds = select.poll(), Molds()
        self.lines: list[str] = []
        complaints = SimpleNamespace(add=lambda text, now: self.lines.append(text))
        self.channels = Channels(self.poll, self.molds, complaints)
        self.mold = self.molds.fork(SETTINGS, {}, start_mold, lambda _: None)
        self.channels.add(self.mold)

    def turn(self, milliseconds: int = 5000) -> list[tuple[int, int]]:
        ready = self.poll.poll(milliseconds)
        for fd, events in ready:
            self.channels.serve(fd, events)
        return ready


@pytest.fixture
def worlds() -> Iterator:
    made: list[World] = []

    def make(start_mold) -> World:
        made.append(World(start_mold))
        return made[-1]

    yield make
    for world in made:
        if world.mold.pid:
            os.kill(world.mold.pid, signal.SIGKILL)
            os.waitpid(world.mold.pid, 0)
        world.mold.close()


def wait(generation: Generation) -> int:
    signal.pause()
    return 0


def test_a_mold_that_has_ended_does_not_keep_the_loop_awake(worlds):
    world = worlds(lambda _: 0)
    os.waitpid(world.mold.pid, 0)
    world.mold.pid = 0
    while world.turn(100):
        pass
    assert not world.mold.is_connected
    world.channels.tick(1e9)
    assert world.turn(0) == []
    assert world.lines == []


def test_the_loop_is_woken_when_there_is_room_again(worlds):
    world = worlds(wait)
    while not world.mold.requests:
        world.mold.spawn("T", 0, 0)
    world.channels.tick(0.0)
    assert world.turn(0) == []
    os.kill(world.mold.pid, signal.SIGKILL)
    channel = world.mold.channel.fileno()
    wait_until(lambda: dict(world.poll.poll(5000)).get(channel, 0) & select.POLLOUT)


def shut_down(generation: Generation) -> int:
    generation.events.shutdown(2)  # as a worker might
    return wait(generation)


def test_a_generation_whose_workers_cannot_be_heard_is_ended(worlds):
    world = worlds(shut_down)
    world.turn()
    assert world.turn(0) == []
    since = world.mold.deaf_since
    world.channels.tick(since + DEAF_SECONDS)
    assert world.lines == []
    world.channels.tick(since + DEAF_SECONDS + 0.1)
    assert world.lines == ["a worker has shut the workers' channel down"]
    _, status = os.waitpid(world.mold.pid, 0)
    world.mold.pid = 0
    assert os.WTERMSIG(status) == signal.SIGKILL
    world.channels.tick(since + 100)
    assert len(world.lines) == 1


def test_a_mold_needs_no_channel_to_be_removed(worlds):
    world = worlds(wait)
    os.kill(world.mold.pid, signal.SIGKILL)
    os.waitpid(world.mold.pid, 0)
    world.mold.pid = 0
    world.turn()
    world.channels.remove(world.mold)
    assert world.mold.channel.fileno() == -1
