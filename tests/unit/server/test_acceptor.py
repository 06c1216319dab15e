"""The acceptor on a real listening socket, without a loop."""

from __future__ import annotations

import errno
import socket

import pytest

from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import acceptor as module
from gtask.server.acceptor import Acceptor
from gtask.server.fairness import BURST, Fairness
from gtask.server.gate import Gate
from gtask.server.stats import WorkerStats

from ...support.listener import Listener, is_closed
from ...support.loop import FakeLoop


class World:
    """An acceptor of one process.

    Attributes:
        taken: connections, in order.
        errors: what the next ones are met with.
    """

    def __init__(self, monkeypatch, *, siblings=1):
        self.listener = Listener()
        self.loop = FakeLoop()
        monkeypatch.setattr(module, "monotonic", self.loop.clock)
        scoreboard = Scoreboard(2)
        for row in reversed(range(siblings)):
            self.stats = WorkerStats(scoreboard)
            self.stats.boot(row, 1 + row)
            self.stats.state(WorkerState.READY)
        self.most = 100
        self.fairness = Fairness(
            self.loop, self.stats, lambda: len(self.taken) >= self.most, siblings=siblings
        )
        self.taken, self.errors, self.served, self.answers_at_once = [], [], 0, False
        self.acceptor = Acceptor(self.listener, self.take, self.fairness, self.serve_newest)
        self.fairness.start(Gate(self.loop, -1))

    def take(self, client, address):
        if self.errors:
            raise self.errors.pop(0)
        self.stats.accepted()
        self.taken.append(client)

    def serve_newest(self):
        self.served += 1
        if self.answers_at_once:
            self.stats.answered()

    def close(self):
        for each in (*self.taken, self.listener):
            each.close()


@pytest.fixture
def make(monkeypatch):
    made = []

    def make(**options):
        made.append(World(monkeypatch, **options))
        return made[-1]

    yield make
    for world in made:
        world.close()


def test_connections_are_handed_over_as_plain_sockets(make):
    world = make()
    world.listener.connect_peers()
    assert world.acceptor.accept_one()
    assert not world.acceptor.accept_one()
    (client,) = world.taken
    assert not isinstance(client, socket.socket)
    client.send(b"hello")
    assert world.listener.peers[0].recv(9) == b"hello"


def test_one_process_alone_takes_ever_more_in_a_turn_of_its_loop(make):
    world = make()
    world.listener.connect_peers(20)
    shares = []
    while len(world.taken) < 20:
        before = len(world.taken)
        world.acceptor.accept_some()
        shares.append(len(world.taken) - before)
    assert shares == [1, 1, 2, 3, 4, 5, 4]
    assert world.served == 0


def test_where_several_share_each_takes_two_of_which_nothing_is_known_and_leaves_the_rest(make):
    world = make(siblings=2)
    world.listener.connect_peers(5)
    world.acceptor.accept_some()
    assert (len(world.taken), world.served) == (2, 2)
    assert not world.fairness.is_open


def test_where_several_share_each_takes_as_many_as_are_answered_at_once(make):
    world = make(siblings=2)
    world.answers_at_once = True
    world.listener.connect_peers(BURST + 5)
    world.acceptor.accept_some()
    assert (len(world.taken), world.served) == (BURST, BURST)


def test_one_that_becomes_full_leaves_the_rest_to_others(make):
    world = make()
    world.most = 3
    world.listener.connect_peers(6)
    for _ in range(4):
        world.acceptor.accept_some()
    assert len(world.taken) == 3
    assert not world.fairness.is_open


def test_who_is_handed_over_in_vain_is_closed_and_the_next_one_is_not(make):
    world = make()
    world.errors = [RuntimeError("broken")]
    world.listener.connect_peers(2)
    with pytest.raises(RuntimeError, match="broken"):
        world.acceptor.accept_some()
    world.acceptor.accept_some()
    assert [is_closed(peer) for peer in world.listener.peers] == [True, False]


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_without_resources_it_pauses_and_says_so_now_and_then(make, caplog, error):
    world = make()
    world.listener.connect_peers()
    for _ in range(3):
        world.listener.errors = [OSError(error, "not enough")]
        world.acceptor.accept_some()
        assert not world.fairness.is_open
        world.loop.advance(module.EXHAUSTED_SECONDS)
        assert world.fairness.is_open
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == ["cannot accept connections: not enough"]
    world.loop.advance(module.COMPLAIN_SECONDS)
    world.listener.errors = [OSError(error, "still not enough")]
    world.acceptor.accept_some()
    assert "still not enough" in caplog.text
    world.loop.advance(module.EXHAUSTED_SECONDS)
    world.acceptor.accept_some()
    assert len(world.taken) == 1


def test_a_peer_that_has_gone_again_is_nothing_to_speak_of(make, caplog):
    world = make()
    world.listener.errors = [OSError(errno.ECONNABORTED, "gone")]
    world.acceptor.accept_some()
    assert world.fairness.is_open
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
