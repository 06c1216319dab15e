"""The service as a worker process sees it: connections, idleness, the end."""

from __future__ import annotations

import socket

import pytest
from gevent.event import Event

from ...support.served import Served, let_loop_turn, result, until


class Gate:
    def __init__(self):
        self.event = Event()

    def hold(self):
        self.event.wait()


def echo(value=None):
    return value


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def served(gate):
    with Served(gate.hold, echo, concurrency=2) as served:
        yield served
        gate.event.set()
        let_loop_turn()


def test_it_is_idle_without_connections_and_tasks(served, gate):
    assert served.service.is_idle
    peer = served.connect()
    assert not served.service.is_idle
    peer.rpc(1, "hold")
    until(lambda: served.engine.turns.running)
    peer.close()
    let_loop_turn()
    assert not served.service.is_idle, "its task still runs"
    gate.event.set()
    until(lambda: served.service.is_idle)


def test_it_is_full_when_no_turn_is_left(served, gate):
    peer = served.connect()
    peer.rpc(1, "hold")
    peer.rpc(2, "hold")
    until(lambda: served.service.is_full)
    number, since = served.service.oldest()
    assert number == 1
    assert since > 0
    gate.event.set()
    until(lambda: not served.service.is_full)
    assert served.service.oldest() == (0, 0.0)


def test_what_came_with_the_connection_can_be_served_before_the_loop_turns(served):
    served.service.serve_newest()
    peer = served.connect()
    peer.rpc(1, "echo", 7)

    def serve():
        served.service.serve_newest()
        return peer.has_bytes()

    assert served.in_hub(serve)
    assert peer.line() == result(1, 7)


def test_each_connection_is_reported(served):
    assert served.service.report() == []
    first, _ = served.connect(), served.connect()
    first.rpc(1, "echo")
    first.line()
    assert sorted(each["protocol"] for each in served.service.report()) == ["bare", "json-rpc"]


class Unwatchable:
    """A socket that epoll will not take, as when the kernel watches no more."""

    family = socket.AF_INET

    def __init__(self, file):
        self._file = file
        self.is_closed = False

    def fileno(self):
        return self._file.fileno()

    def close(self):
        self.is_closed = True


def test_a_connection_that_cannot_be_watched_is_closed_and_counted_out(served, caplog):
    served.connect()
    with open(__file__) as file:  # epoll_ctl(2), EPERM: a regular file
        client = Unwatchable(file)
        served.stats.accepted()
        served.service.accept(client, ("127.0.0.1", 1))
    assert client.is_closed
    assert len(served.engine.connections) == served.stats.connections == 1
    assert "cannot serve a connection" in caplog.text


def test_aborted_it_has_no_connection_and_answers_nobody(served, gate):
    peers = [served.connect() for _ in range(3)]
    peers[0].rpc(1, "hold")
    until(lambda: served.engine.turns.running)
    served.service.abort()
    assert all(peer.has_ended() for peer in peers)
    assert served.stats.connections == 0
    gate.event.set()
    until(lambda: served.service.is_idle)


def test_a_forked_child_holds_none_of_its_parents_connections(served):
    served.service.after_fork_in_child()  # without a connection, nothing to leave
    peer = served.connect()
    served.service.after_fork_in_child()
    assert peer.has_ended()  # no other process of this test's has it
    assert served.stats.connections == 1  # which the parent counts
