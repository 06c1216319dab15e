"""Whatever happens to a connection, every call ends once, and as well as it can."""

from __future__ import annotations

import os
import socket
import struct
import time

import gevent
import pytest
from gevent.event import Event
from gevent.server import StreamServer

from gtask.address import parse_address
from gtask.client import wait
from gtask.client.endpoint import Endpoint
from gtask.errors import (
    Draining,
    InternalError,
    Overloaded,
    TaskCancelled,
    TaskTimedOut,
    WorkerLost,
)

from .peers import Outcome, echo, pool_of, ready, wait_for

NO_PORT = "text://127.0.0.1:1"


def reset(peer_socket):
    peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer_socket.detach())


def hang_up(line):
    line.socket.shutdown(socket.SHUT_RDWR)


def test_refused(connect):
    client = connect(NO_PORT, patience=0.1)
    outcome = Outcome()
    with pytest.raises(WorkerLost, match="Connection refused") as caught:
        client.call("f", **outcome.callbacks()).get()
    assert caught.value.data == {"sent": False}
    assert caught.value.retryable
    wait_for(lambda: outcome.ends)


def test_patience_outlasts_a_restart(peer, connect):
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    call = connect(f"text://127.0.0.1:{port}").call("f", [1])
    gevent.sleep(0.1)
    assert not call.done
    server = peer()
    late = StreamServer(("127.0.0.1", port), server._serve)
    late.start()
    assert call.get(timeout=5) == [1]
    late.stop(timeout=0)


@pytest.mark.parametrize("end", [hang_up, lambda line: reset(line.socket)], ids=["fin", "rst"])
def test_a_lost_connection_ends_what_was_sent(peer, connect, end):
    outcome = Outcome()
    call = connect(peer(end)).call("f", **outcome.callbacks())
    with pytest.raises(WorkerLost) as caught:
        call.get(timeout=5)
    assert caught.value.data == {"sent": True}
    wait_for(lambda: outcome.ends)
    assert outcome.ends == 1


def test_retries_repeat_what_was_lost(peer, connect):
    seen = []

    def third_time_lucky(line):
        seen.append(line.id)
        echo(line) if len(seen) == 3 else hang_up(line)

    client = connect(peer(third_time_lucky))
    with pytest.raises(WorkerLost):
        client.call("f", [1]).get(timeout=5)
    assert client.call("f", [2], retries=2).get(timeout=5) == [2]


def test_retries_are_used_up(peer, connect):
    server = peer(lambda line: line.error(-32000, "full", {"retry_after": 0.05}))
    started = time.monotonic()
    with pytest.raises(Overloaded, match="full"):
        connect(server).call("f", retries=2).get(timeout=5)
    assert len(server.lines) == 3
    assert time.monotonic() - started >= 0.1


def test_errors_of_the_task_are_not_repeated(peer, connect):
    server = peer(lambda line: line.error(-32603, "not JSON"))
    with pytest.raises(InternalError):
        connect(server, retries=5).call("f").get(timeout=5)
    assert len(server.lines) == 1


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
    gevent.sleep(0.05)
    assert ready(client)[0]._buffered > 5_000_000
    other = peer(lambda line: line.result(line.message["params"][0]))
    pool = pool_of(client)  # as if there had been two endpoints all along
    pool.endpoints.append(Endpoint(pool.reactor, parse_address(other.url), 1, pool.open))
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


def test_late_double_and_foreign_answers_are_dropped(peer, connect):
    def odd(line):
        line.send({"jsonrpc": "2.0", "result": "of nobody", "id": 10**9})
        line.send({"jsonrpc": "2.0", "result": "typed wrongly", "id": float(line.id)})
        line.send({"jsonrpc": "2.0", "result": "typed wrongly", "id": str(line.id)})
        line.send({"jsonrpc": "2.0", "method": "gtask.progress", "params": {"id": [1]}})
        line.send({"jsonrpc": "2.0", "method": "somebody.elses"})
        line.send([1, 2])
        line.send(b"3")
        echo(line)
        echo(line)

    client = connect(peer(odd))
    for number in range(3):
        outcome = Outcome()
        assert client.call("f", [number], **outcome.callbacks()).get(timeout=5) == [number]
        gevent.sleep(0.01)
        assert outcome.results == [[number]]
        assert outcome.ends == 1


def test_a_late_answer_is_dropped(peer, connect):
    server = peer(lambda line: gevent.spawn_later(0.1, line.result, "late"))
    outcome = Outcome()
    client = connect(server)
    with pytest.raises(TaskTimedOut):
        client.call("f", timeout=0.03, **outcome.callbacks()).get()
    gevent.sleep(0.15)
    assert outcome.ends == 1
    assert pool_of(client).calls == {}


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n", b"{", b"\xff", b"[NaN]"])
def test_a_peer_that_speaks_something_else(peer, connect, garbage):
    call = connect(peer(lambda line: line.send(garbage))).call("f")
    with pytest.raises(WorkerLost, match="not a JSON-RPC peer"):
        call.get(timeout=5)


def test_an_answer_that_is_too_long(peer, connect):
    call = connect(peer(lambda line: line.result("x" * 2000)), max_frame_bytes=1500).call("f")
    with pytest.raises(WorkerLost, match="longer than 1500"):
        call.get(timeout=5)


def test_a_malformed_error(peer, connect):
    def answer(line):
        line.send({"jsonrpc": "2.0", "error": "just text", "id": line.id})

    with pytest.raises(InternalError, match="malformed"):
        connect(peer(answer)).call("f").get(timeout=5)


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
    with pytest.raises(WorkerLost, match="connected, but no answer"):
        alone.call("f", timeout=10).get()


def test_a_peer_that_falls_silent_gets_no_new_calls_until_it_speaks(peer, connect):
    def silent(line):
        line.result(1) if line.method == "first" else None

    quiet, good = peer(silent), peer(echo)
    client = connect(quiet, good, connections=1)
    for _ in range(4):
        client.call("first").get(timeout=5)
    quiet.pongs = False
    assert wait_for(lambda: len(ready(client)) == 2)
    calls = [client.call("f", [1], timeout=0.05) for _ in range(4)]
    outcomes = [call.error for call in wait(calls, timeout=5)]
    assert sum(isinstance(error, TaskTimedOut) for error in outcomes) == 2
    asked = len(quiet.lines)
    results = [client.call("f", [number], timeout=5).get() for number in range(20)]
    assert results == [[number] for number in range(20)]
    assert len([line for line in quiet.lines[asked:] if line.method != "gtask.cancel"]) == 0
    quiet.lines[0].send({"jsonrpc": "2.0", "method": "hello"})
    wait_for(lambda: len(ready(client)) == 2)


def test_goaway_is_honoured_without_losing_a_call(peer, connect):
    leaving = peer(lambda line: None)
    client = connect(leaving, connections=1)
    before = client.call("f", [1])
    wait_for(lambda: leaving.lines)
    leaving.lines[0].send({"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}})
    after = [client.call("f", [number]) for number in range(5)]
    wait_for(lambda: len(leaving.sockets) == 2)
    wait_for(lambda: len(leaving.lines) == 6)
    for line in leaving.lines:
        echo(line)
    assert before.get(timeout=5) == [1]
    assert [call.get(timeout=5) for call in after] == [[number] for number in range(5)]
    # The old connection was closed by the client, once its last answer was there.
    assert len(pool_of(client).connections) == 1


def test_goaway_instead_of_a_welcome(peer, connect):
    leaving = peer(pongs=False)
    welcoming = peer()
    client = connect(leaving, welcoming)
    call = client.call("f", [1])
    wait_for(lambda: leaving.sockets)
    pong = b'{"jsonrpc":"2.0","result":"pong","id":0}\n'
    leaving.sockets[0].sendall(pong + b'{"jsonrpc":"2.0","method":"gtask.goaway","params":{}}\n')
    assert call.get(timeout=5) == [1]
    wait_for(lambda: pool_of(client).endpoints[0].why == "the server is shutting down")
    assert not leaving.lines


def test_what_a_draining_server_did_not_start_is_made_elsewhere(peer, connect, monkeypatch):
    monkeypatch.setattr("gtask.client.pool.FIRST_DELAY", 0.002)
    monkeypatch.setattr("gtask.client.endpoint.FIRST_PAUSE", 0.002)
    draining = peer(lambda line: line.error(-32003, "the server is shutting down"))
    good = peer()
    client = connect(draining, good)
    calls = [client.call("f", [number]) for number in range(20)]
    assert [call.get(timeout=5) for call in calls] == [[number] for number in range(20)]
    with pytest.raises(Draining):
        connect(draining).call("f", timeout=60).get(timeout=60)
    assert len(draining.lines) < 60


def test_dead_endpoints_are_left_alone_and_probed_back(peer, connect, monkeypatch):
    monkeypatch.setattr("gtask.client.endpoint.FIRST_PAUSE", 0.02)
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        port = placeholder.getsockname()[1]
    good = peer()
    client = connect(good, f"text://127.0.0.1:{port}")
    assert client.call("f", [1]).get(timeout=5) == [1]
    dead = pool_of(client).endpoints[1]
    wait_for(lambda: dead.failures >= 2)
    back = StreamServer(("127.0.0.1", port), good._serve)
    back.start()
    # In use again, and with the first answer as good as ever.
    wait_for(lambda: client.call("f").get() is None and not dead.failures)
    back.stop(timeout=0)


def test_a_connection_gets_old(peer, connect):
    server = peer()
    client = connect(server, connections=1, max_age=0.05)
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        assert client.call("f", [1]).get(timeout=5) == [1]
        gevent.sleep(0.005)
    assert len(server.sockets) >= 4
    wait_for(lambda: len(pool_of(client).connections) <= 1)  # none, if the last one got old, too


def test_too_many_pending_calls_are_refused(peer, connect):
    client = connect(peer(lambda line: None), max_pending=3)
    calls = [client.call("f") for _ in range(3)]
    with pytest.raises(Overloaded, match="3 calls are pending"):
        client.call("f").get()
    calls[0].cancel()
    assert not client.call("f").done


def test_close_ends_everything(peer, connect):
    server = peer(lambda line: None)
    client = connect(server)
    outcomes = [Outcome() for _ in range(10)]
    calls = [client.call("f", **outcome.callbacks()) for outcome in outcomes]
    wait_for(lambda: len(server.lines) == 10)
    client.close()
    client.close()
    wait_for(lambda: all(outcome.ends for outcome in outcomes))
    assert all(isinstance(call.error, TaskCancelled) for call in calls)
    assert [outcome.ends for outcome in outcomes] == [1] * 10
    wait_for(lambda: len(server.lines) == 20)
    assert {line.message["params"]["id"] for line in server.lines[10:]} == {c.id for c in calls}
    assert pool_of(client).connections == []


def test_a_callback_may_close_the_client(peer, connect):
    client = connect(peer())
    calls = [client.call("f", [number], on_result=lambda _: client.close()) for number in range(9)]
    wait(calls, timeout=5)
    assert calls[0].get() == [0]
    assert all(call.done for call in calls)


def test_the_first_burst_is_shared_by_the_connections(peer, connect):
    server = peer(lambda line: None)
    client = connect(server, connections=4)
    for _ in range(12):
        client.call("f")
    wait_for(lambda: len(server.lines) == 12)
    counts = [sum(line.socket is s for line in server.lines) for s in server.sockets]
    assert sorted(counts) == [3, 3, 3, 3]
