"""One connection that hangs, breaks, drains, or gets old under its calls."""

from __future__ import annotations

import socket
import time

import gevent
import pytest
from gevent.event import Event

from gtask.address import parse_address
from gtask.client import wait
from gtask.client.calls import Call
from gtask.client.connection import Stage
from gtask.client.endpoint import Endpoint
from gtask.client.rpc import RpcConnection
from gtask.errors import InternalError, TaskTimedOut, WorkerLost

from .peers import Outcome, hang_up, pool_of, ready, reset, wait_for


@pytest.mark.parametrize("end", [hang_up, lambda line: reset(line.socket)], ids=["fin", "rst"])
def test_a_lost_connection_ends_what_was_sent(peer, connect, end):
    outcome = Outcome()
    call = connect(peer(end)).call("f", **outcome.callbacks())
    with pytest.raises(WorkerLost) as caught:
        call.get(timeout=5)
    assert caught.value.data == {"sent": True}
    wait_for(lambda: outcome.ends)
    assert outcome.ends == 1


def test_what_was_not_sent_moves_to_another_endpoint(peer, connect):
    """The first peer takes a little and then stops reading; what piles up is not lost with it."""
    reading = Event()

    def stop_reading(line):
        reading.wait()
        line.result(line.message["params"][0])

    stuck = peer(stop_reading)
    client = connect(stuck, connections=1)
    big = "x" * 1_000_000
    calls = [client.call("f", [number, big]) for number in range(20)]
    wait_for(lambda: stuck.lines)
    wait_for(lambda: ready(client)[0]._buffered > 5_000_000)
    other = peer(lambda line: line.result(line.message["params"][0]))
    pool = pool_of(client)  # as if there had been two endpoints all along
    pool._fleet.add(Endpoint(pool.reactor, parse_address(other.url), 1, pool.open))
    pool.open(pool.endpoints[1])
    wait_for(lambda: len(ready(client)) == 2)
    reset(stuck.sockets[0])
    reading.set()
    wait(calls, timeout=10)
    answered = [call.get() for call in calls if call.error is None]
    lost = [call.error for call in calls if call.error is not None]
    assert len(answered) >= 5
    assert len(lost) >= 1
    assert len(answered) + len(lost) == 20
    assert all(error.data == {"sent": True} for error in lost)
    assert sorted(answered) == answered  # the later ones: the earlier were sent


@pytest.mark.parametrize("id_first", [False, True])
def test_an_answer_that_is_too_long_is_the_matter_of_its_call_alone(peer, connect, id_first):
    def answer(line):
        parts = [f'"result":"{"x" * 200_000}"', f'"id":{line.id}']
        if line.method == "short":
            line.result("short")
        else:
            line.send(f"{{{','.join(parts[::-1] if id_first else parts)}}}".encode())

    server = peer(answer)
    client = connect(server, connections=1, max_frame_bytes=1500)
    short, long, other = (client.call(name) for name in ("short", "long", "short"))
    with pytest.raises(InternalError, match="longer than 1500"):
        long.get(timeout=5)
    assert short.get(timeout=5) == other.get(timeout=5) == "short"
    assert len(server.sockets) == 1


def test_a_frame_that_is_too_long_and_answers_nobody_costs_its_connection(peer, connect):
    server = peer(lambda line: line.send(b"x" * 2000))
    with pytest.raises(WorkerLost, match="longer than 1500"):
        connect(server, max_frame_bytes=1500).call("f").get(timeout=5)


def test_a_black_hole_ends_calls_in_time_and_others_are_used(peer, connect):
    """It accepts, and never says a word."""
    hole, good = peer(pongs=False), peer()
    client = connect(hole, good, connect_timeout=0.2)
    calls = [client.call("f", [number], timeout=5) for number in range(50)]
    assert [call.get() for call in calls] == [[number] for number in range(50)]
    assert not hole.lines
    alone = connect(hole, connect_timeout=0.1, patience=0.3)
    started = time.monotonic()
    with pytest.raises(TaskTimedOut):
        alone.call("f", timeout=0.2).get()
    assert time.monotonic() - started < 1
    # It may be busy, so what has no limit but its own waits as long as that.
    started = time.monotonic()
    with pytest.raises(TaskTimedOut):
        alone.call("f", timeout=1).get()
    assert time.monotonic() - started > 0.9


def test_a_connection_gets_old(peer, connect):
    server = peer()
    client = connect(server, connections=1, max_age=0.05)
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        assert client.call("f", [1]).get(timeout=5) == [1]
        gevent.sleep(0.005)
    assert len(server.sockets) >= 4
    wait_for(lambda: len(pool_of(client).connections) <= 1)  # none, if the last one got old, too


class Owner:
    """Notes what a connection tells it."""

    def __init__(self):
        self.told = []

    def connection_ready(self, connection):
        self.told.append("ready")

    def connection_unready(self, connection):
        self.told.append("unready")

    def connection_silent(self, connection):
        self.told.append("silent")

    def is_wanted(self, connection):
        return False

    def calls_answered(self, connection, answers):
        self.told += [(call.id, result, error) for call, result, error in answers]

    def connection_lost(self, connection, reason, is_failure):
        self.told.append((reason, is_failure))


@pytest.fixture
def world(make_world):
    return make_world(max_age=100.0)


@pytest.fixture
def made(world):
    """A connection whose owner is a note-book, and that owner."""
    owner = Owner()
    pool = world.pool
    connection = RpcConnection(pool.reactor, owner, pool.endpoints[0], pool.options)
    connection.connect()
    return connection, owner


def call(world, id):
    return Call(world.pool, id, "f", b"", None, None, None, None, 60.0, 0)


def test_one_that_was_never_of_use_is_a_failure(world, made):
    connection, owner = made
    assert connection.endpoint.in_use == 1
    world.refuse(connection)
    assert owner.told == [("Connection refused", True)]
    assert connection.stage is Stage.CLOSED
    assert connection.endpoint.in_use == 0


def test_one_that_has_served_is_none(world, made):
    connection, owner = made
    world.connect(connection)
    assert owner.told == []
    world.pong(connection)
    world.lose(connection)
    assert owner.told == ["ready", ("closed by the peer", False)]


def test_it_drains_when_it_gets_old(world, made):
    connection, owner = made
    world.connect(connection)
    world.pong(connection)
    connection.put(call(world, 1))
    world.wait(120)
    assert owner.told == ["ready", "unready"]
    assert repr(connection) == f"<RpcConnection {connection.endpoint.address} DRAINING 1>"
    world.answer(connection, 1)
    assert owner.told[2:] == [(1, 1, None), ("drained", False)]


def test_what_was_made_in_one_iteration_goes_out_in_one_send(world, made):
    connection, _ = made
    world.connect(connection)
    world.pong(connection)
    sends = []
    connection._socket.send = lambda data, _flags: sends.append(bytes(data)) or len(data)
    for id in (1, 2, 3):
        connection.put(call(world, id))
    assert sends == []
    world.run()
    assert [send.count(b"\n") for send in sends] == [3]


def test_it_knows_which_lines_the_kernel_has_taken(world, made):
    connection, _ = made
    world.connect(connection)
    world.pong(connection)
    first, second = call(world, 1), call(world, 2)
    connection.put(first)
    connection.put(second)
    connection._socket.room = first._mark - connection.bytes_written
    assert [connection.was_sent(each) for each in (first, second)] == [False, False]
    world.run()
    assert [connection.was_sent(each) for each in (first, second)] == [True, False]
    world.take(connection)
    assert [connection.was_sent(each) for each in (first, second)] == [True, True]


def test_hosts_that_vanish_are_noticed(peer, connect):
    client = connect(peer())
    client.call("f", [1]).get(timeout=5)
    connected = ready(client)[0]._socket
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    for option, value in (
        (socket.TCP_KEEPIDLE, 30),
        (socket.TCP_KEEPINTVL, 10),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 60_000),
    ):
        assert connected.getsockopt(socket.IPPROTO_TCP, option) == value
