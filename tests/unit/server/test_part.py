from __future__ import annotations

import socket

import pytest
import ujson

from gtask.config import parse_settings
from gtask.generation import Generation
from gtask.scoreboard import Scoreboard
from gtask.server.part import Part, close_listeners, part_of

INI = """
[worker:A]
listen = text://127.0.0.1:1
tasks = x
user = nobody
[worker:B]
listen = text://127.0.0.1:2
tasks = x
"""


@pytest.fixture
def whole():
    settings = parse_settings(INI)
    listeners = {name: [socket.socket()] for name in "AB"}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    boards = {name: Scoreboard(1) for name in "AB"}
    generation = Generation(1, settings, listeners, boards, theirs, theirs, 1)
    yield generation, ours
    for each in (ours, theirs, *listeners["A"], *listeners["B"]):
        each.close()


def test_the_share_of_one_user(whole):
    generation, _ = whole
    part = part_of(generation, "nobody", "", generation.channel, 7)
    assert [each.name for each in part.generation.settings.services] == ["A"]
    assert part.generation.listeners.keys() == part.generation.scoreboards.keys() == {"A"}
    close_listeners(generation, part.generation)
    assert generation.listeners["A"][0].fileno() >= 0
    assert generation.listeners["B"][0].fileno() == -1


def test_what_is_told(whole):
    generation, ours = whole
    part = Part(generation, generation.channel, 7)
    part.tell_loaded({"A": ["add"]})
    part.tell_not_loaded(["no x"], 78)
    part.report(event="spawned", row=1)
    assert [ujson.loads(ours.recv(65536)) for _ in range(3)] == [
        {"event": "loaded", "functions": {"A": ["add"]}},
        {"event": "failed", "problems": ["no x"], "code": 78},
        {"event": "spawned", "row": 1},
    ]


def test_what_is_too_long_is_told_in_short(whole):
    generation, ours = whole
    part = Part(generation, generation.channel, 7)
    names = [f"function_{number}_{'x' * 50}" for number in range(20_000)]
    part.tell_loaded({"A": names, "B": ["b"]})
    told = ujson.loads(ours.recv(1 << 20))["functions"]["A"]
    assert len(told) > 1000
    assert told == names[: len(told)]
    part.tell_not_loaded(["y" * 1_000_000, "z"])
    problems = ujson.loads(ours.recv(1 << 20))["problems"]
    assert problems == ["y" * 200]


def test_nobody_hears_it(whole):
    generation, ours = whole
    ours.close()
    part = Part(generation, generation.channel, 7)
    part.tell_loaded({})
    part.tell_not_loaded(["no"])
    part.report(event="spawned")
