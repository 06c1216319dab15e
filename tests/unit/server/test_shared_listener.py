"""gevent's server on a listener that is shared, on the real loop."""

from __future__ import annotations

import errno

import gevent
import pytest
from gevent.server import StreamServer

from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server import acceptor
from gtask.server.fairness import Fairness
from gtask.server.shared_listener import TextServer
from gtask.server.stats import WorkerStats

from ...support.listener import Listener, is_closed
from ...support.served import let_loop_turn, until


class Running:
    """A started server, and what it has taken.

    Attributes:
        taken: connections, in order.
        errors: what the next ones are met with.
    """

    def __init__(self):
        self.listener = Listener()
        self.stats = WorkerStats(Scoreboard(2))
        self.stats.boot(0, 1)
        self.stats.state(WorkerState.READY)
        self.is_full = False
        self.fairness = Fairness(gevent.get_hub().loop, self.stats, lambda: self.is_full)
        self.taken, self.errors = [], []
        self.server = TextServer(self.listener)
        self.server.share(self.take, self.fairness, lambda: None)
        self.server.start()

    def take(self, client, address):
        if self.errors:
            raise self.errors.pop(0)
        self.stats.accepted()
        self.taken.append(client)

    def turn_full(self, is_full):
        self.is_full = is_full
        self.fairness.reconsider()

    def close(self):
        if self.server.started:
            self.server.stop()
        let_loop_turn()
        for each in (*self.taken, self.listener):
            each.close()


@pytest.fixture
def running():
    running = Running()
    let_loop_turn()
    yield running
    running.close()


def test_it_is_gevents_and_accepts(running):
    assert isinstance(running.server, StreamServer)
    assert running.server.started
    running.listener.connect_peers(5)
    until(lambda: len(running.taken) == 5)


def test_a_full_process_accepts_nothing_until_it_is_not(running):
    running.turn_full(True)
    running.listener.connect_peers(3)
    let_loop_turn()
    assert running.taken == []
    running.turn_full(False)
    until(lambda: len(running.taken) == 3)


@pytest.mark.parametrize(
    "error",
    [RuntimeError("broken"), OSError(errno.EINVAL, "broken"), OSError(errno.EBADF, "broken")],
)
def test_an_error_on_the_way_of_a_connection_ends_that_one_only(running, capsys, error):
    running.errors = [error, error]
    running.listener.connect_peers(4)
    until(lambda: len(running.taken) == 2)
    assert [is_closed(peer) for peer in running.listener.peers] == [True, True, False, False]
    assert capsys.readouterr().err.count("broken") >= 2
    assert running.server.started
    running.listener.connect_peers()
    until(lambda: len(running.taken) == 3)


def test_it_goes_on_after_a_time_without_descriptors(running, monkeypatch):
    monkeypatch.setattr(acceptor, "EXHAUSTED_SECONDS", 0.001)
    running.listener.errors = [OSError(errno.EMFILE, "Too many open files")] * 3
    running.listener.connect_peers(2)
    until(lambda: len(running.taken) == 2)


def test_finish_takes_what_is_in_the_queue_and_then_nothing_ever(running, caplog):
    running.turn_full(True)
    running.errors = [RuntimeError("broken")]
    running.listener.connect_peers(3)
    running.server.finish()
    assert len(running.taken) == 2, "those behind a broken one, too"
    assert "cannot take a connection" in caplog.text
    assert not running.server.started
    assert running.stats.on_change is None
    assert not running.fairness.is_open
    running.server.finish()


def test_leaving_it_takes_at_most_what_it_alone_was_woken_for(running):
    running.listener.connect_peers(3)
    running.server.leave()
    assert len(running.taken) == 1
    assert not running.server.started
    assert not running.fairness.is_open
    running.server.leave()
    assert len(running.taken) == 1


def test_leaving_while_it_is_full_it_takes_nothing(running):
    running.turn_full(True)
    running.listener.connect_peers(3)
    running.server.leave()
    assert running.taken == []


def test_a_second_listener_is_opened_and_shut_with_the_first(running):
    listener = Listener()
    server = TextServer(listener)
    server.share(running.take, running.fairness, lambda: None)
    server.start()
    listener.connect_peers(2)
    until(lambda: len(running.taken) == 2)
    running.turn_full(True)
    listener.connect_peers()
    running.listener.connect_peers()
    let_loop_turn()
    assert len(running.taken) == 2
    running.turn_full(False)
    until(lambda: len(running.taken) == 4)
    server.stop()
    listener.close()


def test_stopped_it_leaves_no_timer_of_a_pause(running):
    running.errors = [RuntimeError("broken")]
    running.listener.connect_peers()
    until(lambda: not running.errors)
    running.server.stop()
    assert running.server._timer is None
    assert running.server._watcher is None


def test_a_forked_child_leaves_the_accepting_to_its_parent(running):
    running.server.after_fork_in_child()
    assert not running.fairness.is_open
    running.listener.connect_peers()
    let_loop_turn()
    assert running.taken == []
