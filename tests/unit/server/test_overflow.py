"""The overflow: who is taken when all are full, and what becomes of him; on a fake loop and real sockets."""

from __future__ import annotations

import _socket
import os
import socket

import gevent
import pytest

from gtask import native
from gtask import scoreboard as board
from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import overflow as module
from gtask.server.lobby import Lobby
from gtask.server.overflow import ASKS, GONE, LOOK_SECONDS, SILENT, WAITS, Overflow, what_is_wished
from gtask.server.stats import WorkerStats

from ...support.loop import FakeLoop

HEALTH = b'{"function":"gtask.health"}\n'
CALL = b'{"function":"work"}\n'


class Process:
    """One process of a service with one turn each; full unless the test says otherwise."""

    def __init__(self, world, row, lobby):
        self.stats = WorkerStats(world.board)
        self.stats.boot(row, os.getpid())
        self.stats.state(WorkerState.READY)
        self.admitted = []
        self.listener = world.listener
        self.takes = True
        self.overflow = Overflow(world.loop, world.listener, self.stats, 1, lobby, self)
        self.run(1)

    def run(self, running):
        self.stats.set_running(running)
        if running:
            self.overflow.start()
        else:
            self.overflow.resume()

    def is_full(self):
        return self.stats.running >= 1

    has_no_turn = is_full

    def accept_one(self):
        try:
            client, address = self.listener.accept()
        except BlockingIOError:
            return False
        client = _socket.socket(fileno=client.detach())
        if not self.overflow.receive(client, address):
            self.accept(client, address)
        return True

    def accept(self, client, address):
        self.stats.accepted()
        self.admitted.append((client.recv(1000, _socket.MSG_DONTWAIT), address))
        client.close()

    def serve_newest(self):
        if self.admitted and self.admitted[-1][0] == CALL:
            self.run(1)


class World:
    def __init__(self, monkeypatch):
        self.loop = FakeLoop()
        monkeypatch.setattr(module, "monotonic", self.loop.clock)
        monkeypatch.setattr("gtask.server.stats.monotonic", self.loop.clock)
        self.board = Scoreboard(8)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.peers = []

    def connect(self, words=b""):
        peer = socket.create_connection(self.listener.getsockname())
        peer.sendall(words)
        self.peers.append(peer)
        return peer

    def advance(self, processes, seconds):
        for _ in range(round(seconds / LOOK_SECONDS)):
            self.loop.advance(LOOK_SECONDS)
            for process in processes:
                process.stats.beat(0, 0.0)

    def close(self):
        for each in (self.listener, *self.peers):
            each.close()


@pytest.fixture
def world(monkeypatch):
    world = World(monkeypatch)
    yield world
    world.close()


@pytest.fixture
def two(world):
    lobby = Lobby(native.seqpacket_pair())
    return [Process(world, row, lobby) for row in range(2)]


def words(process):
    return [said for said, _ in process.admitted]


def test_who_needs_no_turn_is_answered(world, two):
    peer = world.connect(HEALTH)
    world.advance(two, 0.04)
    assert not two[0].admitted
    world.advance(two, 0.2)
    (one,) = two[0].admitted + two[1].admitted
    assert one == (HEALTH, peer.getsockname())


def test_who_calls_waits_in_the_lobby_for_the_first_turn_of_all(world, two):
    for number in range(4):
        world.connect(b'{"function":"work","args":[%d]}\n' % number)
    world.advance(two, 1)
    assert not two[0].admitted + two[1].admitted
    two[1].run(0)
    world.loop.turn()
    assert [said[-4:-3] for said in words(two[1])] == [b"0", b"1", b"2", b"3"]
    assert not two[0].admitted


def test_as_many_are_taken_from_the_lobby_as_there_are_turns(world, two):
    for _ in range(3):
        world.connect(CALL)
    world.advance(two, 1)
    two[0].run(0)
    world.loop.turn()
    assert words(two[0]) == [CALL]
    two[1].run(0)
    world.loop.turn()
    assert words(two[1]) == [CALL]


def test_nobody_is_taken_while_somebody_has_room(world, two):
    two[1].run(0)
    world.connect(HEALTH)
    world.advance(two, 1)
    assert not two[0].admitted
    world.advance(two[:1], 2)  # its loop stands still
    assert words(two[0]) == [HEALTH]


def test_a_call_with_a_limit_waits_for_its_turn_here(world, two):
    world.connect(b'{"function":"work","timeout":1}\n')
    world.advance(two, 0.5)
    assert len(two[0].admitted + two[1].admitted) == 1


def test_who_says_nothing_becomes_a_connection_as_any_other(world, two):
    world.connect()
    world.advance(two, 0.9)
    assert not two[0].admitted + two[1].admitted
    assert two[0].overflow.guests + two[1].overflow.guests == 1
    for process in two:
        process.accept = lambda client, _, process=process: process.admitted.append(client.close())
    world.advance(two, 1)
    assert two[0].admitted + two[1].admitted == [None]


def test_who_has_gone_is_closed(world, two):
    world.connect().close()
    world.advance(two, 0.5)
    assert two[0].overflow.guests + two[1].overflow.guests == 0
    assert not two[0].admitted + two[1].admitted


def test_a_long_queue_is_taken_in_about_a_second(world, two):
    for _ in range(100):
        world.connect(CALL)
    world.connect(HEALTH)
    world.advance(two, 1.5)
    assert words(two[0]) + words(two[1]) == [HEALTH]


def test_without_a_lobby_all_is_served_here(world):
    process = Process(world, 0, None)
    world.connect(CALL)
    world.advance([process], 0.5)
    assert words(process) == [CALL]


def test_when_it_drains_all_that_is_here_is_served(world, two):
    for said in (CALL, CALL):
        world.connect(said)
    world.advance(two, 0.5)
    world.connect(b"half")
    world.advance(two, 0.2)
    two[0].overflow.close()
    two[1].overflow.close()
    assert sorted(words(two[0]) + words(two[1])) == sorted([CALL, CALL, b"half"])


def test_it_stops_looking_when_there_are_turns_again(world, two):
    assert len(world.loop.timers) == 2
    for process in two:
        process.run(0)
    world.advance(two, 0.2)
    assert not world.loop.timers


@pytest.mark.parametrize(
    ("said", "wish"),
    [
        (b"", SILENT),
        (b'{"function":"gtask.hea', SILENT),
        (HEALTH, ASKS),
        (b'{"jsonrpc":"2.0","method":"gtask.ping","id":1}\n', ASKS),
        (CALL, WAITS),
        (b"no json\n", WAITS),
        (b'{"jsonrpc":"2.0","method":"gtask.call","id":1,"params":{"function":"f"}}\n', WAITS),
        (b'{"jsonrpc":"2.0","method":"gtask.call","params":{"options":{"timeout":1}}}\n', ASKS),
        (b"x" * 5000, WAITS),
        (None, GONE),
    ],
)
def test_a_guest_is_known_by_its_first_line(said, wish):
    near, far = socket.socketpair()
    if said is None:
        near.close()
    else:
        near.sendall(said)
    assert what_is_wished(far) == wish
    if wish != GONE:
        assert far.recv(5000, socket.MSG_DONTWAIT) == said if said else True
    far.close()
    near.close()


def test_a_row_that_is_empty_is_nobody(world):
    process = Process(world, 3, None)
    assert process.stats.is_next_to_overflow(1, 0.0)
    world.board.loads[1] = board.ABSENT
    assert process.stats.is_next_to_overflow(1, 0.0)


def test_it_looks_as_often_as_it_says_and_no_more(world, monkeypatch):
    process = Process(world, 0, None)
    process.overflow._loop = gevent.get_hub().loop
    process.overflow.stop()
    process.overflow.start()
    looks = []
    monkeypatch.setattr(process.overflow, "_sort_guests", lambda: looks.append(1))
    for _ in range(100):
        gevent.sleep(0.005)
    process.overflow.stop()
    assert 4 < len(looks) <= 12
