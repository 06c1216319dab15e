"""gevent's server on a listener that is shared: real sockets of which no file has the name."""

from __future__ import annotations

import errno
import socket

import gevent
import pytest

from gtask.scoreboard import Scoreboard, State
from gtask.server import shared_listener as module
from gtask.server.fairness import Fairness
from gtask.server.shared_listener import TextServer
from gtask.server.stats import WorkerStats

from ...support.served import let_loop_turn, until


class Listener(socket.socket):
    """A listening socket whose next accepts fail with these errors.

    Attributes:
        accepts: how often somebody tried.
    """

    def __init__(self):
        super().__init__(socket.AF_UNIX)
        self.errors = []
        self.accepts = 0
        self.bind("")
        self.listen(64)
        self.setblocking(False)

    def _accept(self):
        self.accepts += 1
        if self.errors:
            raise self.errors.pop(0)
        return super()._accept()


class Running:
    """A started server, and what it has taken.

    Attributes:
        taken: connections, in order.
        errors: what the next ones are met with.
    """

    def __init__(self, siblings=1):
        self.listener = Listener()
        self.board = Scoreboard(4)
        self.stats = WorkerStats(self.board)
        self.stats.boot(0, 1)
        self.is_full = False
        self.fairness = Fairness(
            gevent.get_hub().loop, self.stats, lambda: self.is_full, siblings=siblings
        )
        self.taken, self.errors, self.polls, self.peers = [], [], 0, []
        self.server = TextServer(self.listener)
        self.server.share(self.take, self.fairness, self.poll)
        self.server.start()
        self.stats.state(State.READY)
        self.address = self.listener.getsockname()

    def take(self, client, address):
        if self.errors:
            raise self.errors.pop(0)
        self.stats.accepted()
        self.taken.append(client)

    def poll(self):
        self.polls += 1

    def connect(self, many=1):
        for _ in range(many):
            peer = socket.socket(socket.AF_UNIX)
            peer.setblocking(False)
            peer.connect(self.address)
            self.peers.append(peer)

    def close(self):
        if self.server.started:
            self.server.stop()
        let_loop_turn()
        for each in (*self.peers, *self.taken, self.listener):
            each.close()


@pytest.fixture
def start():
    made = []

    def start(**options):
        made.append(Running(**options))
        let_loop_turn()
        return made[-1]

    yield start
    for running in made:
        running.close()


def is_closed(peer):
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False


def test_connections_are_handed_over_as_plain_sockets_on_the_hub(start):
    running = start()
    running.connect(5)
    until(lambda: len(running.taken) == 5)
    assert all(not isinstance(client, socket.socket) for client in running.taken)
    assert running.fairness.accepted > 0 or running.fairness.burst() >= 1
    assert running.polls == 0, "one process alone has no need to hurry"


def test_where_several_share_what_has_come_is_read_at_once(start):
    running = start(siblings=2)
    running.connect(2)
    until(lambda: len(running.taken) == 2)
    assert running.polls == 2


def test_a_full_process_accepts_nothing_until_it_is_not(start):
    running = start()
    running.is_full = True
    running.fairness.reconsider()
    running.connect(3)
    let_loop_turn()
    assert running.taken == []
    running.is_full = False
    running.fairness.reconsider()
    until(lambda: len(running.taken) == 3)


def test_one_that_becomes_full_leaves_the_rest_to_others(start):
    running = start()
    take = running.server._take

    def take_one(client, address):
        take(client, address)
        running.is_full = True

    running.server._take = take_one
    running.connect(3)
    until(lambda: running.taken)
    let_loop_turn()
    assert len(running.taken) == 1


def test_an_error_on_the_way_of_a_connection_ends_that_one_only(start, capsys):
    running = start()
    running.errors = [RuntimeError("broken"), RuntimeError("broken again")]
    running.connect(4)
    until(lambda: len(running.taken) == 2)
    assert [is_closed(peer) for peer in running.peers] == [True, True, False, False]
    assert "broken again" in capsys.readouterr().err
    running.connect()
    until(lambda: len(running.taken) == 3)


def test_without_descriptors_it_pauses_and_says_so_once(start, monkeypatch, caplog):
    monkeypatch.setattr(module, "EXHAUSTED_SECONDS", 0.001)
    running = start()
    running.listener.errors = [OSError(errno.EMFILE, "Too many open files")] * 3
    running.connect(2)
    until(lambda: len(running.taken) == 2)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert lines == ["cannot accept connections: Too many open files"]


def test_a_peer_that_has_gone_again_is_nothing_to_speak_of(start, caplog):
    running = start()
    running.listener.errors = [OSError(errno.ECONNABORTED, "gone"), BlockingIOError()]
    running.connect(2)
    until(lambda: len(running.taken) == 2)
    assert not caplog.records


def test_finish_takes_what_is_in_the_queue_and_then_nothing_ever(start, caplog):
    running = start()
    running.is_full = True
    running.fairness.reconsider()
    running.errors = [RuntimeError("broken")]
    running.connect(3)
    running.server.finish()
    assert len(running.taken) == 2, "those behind a broken one, too"
    assert not running.server.started
    assert running.stats.on_change is None
    assert running.fairness.gate is None
    with pytest.raises(ConnectionRefusedError):
        running.connect()
    running.server.finish()
    assert "cannot take a connection" in caplog.text


def test_a_forked_child_leaves_the_accepting_to_its_parent(start):
    running = start()
    running.server.after_fork_in_child()
    assert running.server.full()
    running.connect()
    let_loop_turn()
    assert running.taken == []
