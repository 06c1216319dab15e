"""The page's dialect: one call at a time on a connection, answers told apart by order."""

from __future__ import annotations

import gevent
import pytest

from gtask.errors import BadArguments, InternalError, TaskTimedOut, WorkerLost

from .peers import Outcome, pool_of, wait_for


def answer(line):
    gevent.spawn_later(0.02, line.send, line.message["args"])


def test_calls_are_spread_over_connections_one_at_a_time(peer, connect):
    server = peer(answer)
    client = connect(server, dialect="bare", connections=3)
    calls = [client.call("f", [number]) for number in range(10)]
    assert [call.get(timeout=5) for call in calls] == [[number] for number in range(10)]
    assert len(server.sockets) == 3
    assert {"function": "f", "args": [0]} in [line.message for line in server.lines]


def test_a_connection_for_each_task(peer, connect):
    server = peer(answer)
    client = connect(server, dialect="bare", connections=3, keep_connections=False)
    calls = [client.call("f", {"n": number}, timeout=5) for number in range(10)]
    assert [call.get(timeout=5) for call in calls] == [{"n": number} for number in range(10)]
    assert len(server.sockets) == 10
    assert 4 < server.lines[0].message["timeout"] <= 5
    wait_for(lambda: not pool_of(client).connections)


def test_errors_and_answers_that_look_like_them(peer, connect):
    answers = iter(
        [
            {"error": {"code": -32602, "message": "missing b"}},
            {"error": "a result"},
            b"no JSON",
            None,
        ]
    )
    client = connect(peer(lambda line: line.send(next(answers))), dialect="bare")
    with pytest.raises(BadArguments, match="missing b"):
        client.call("f").get(timeout=5)
    assert client.call("f").get(timeout=5) == {"error": "a result"}
    with pytest.raises(InternalError, match="not JSON"):
        client.call("f").get(timeout=5)


def test_a_late_answer_is_not_taken_for_the_next_ones(peer, connect):
    def late_at_first(line):
        late = line.message["args"] == ["late"]
        gevent.spawn_later(0.1 if late else 0, line.send, line.message["args"])

    client = connect(peer(late_at_first), dialect="bare", connections=1)
    outcome = Outcome()
    with pytest.raises(TaskTimedOut):
        client.call("f", ["late"], timeout=0.03, **outcome.callbacks()).get()
    for number in range(5):
        assert client.call("f", [number], timeout=5).get() == [number]
        gevent.sleep(0.03)
    assert outcome.ends == 1


def test_an_answer_too_many_ends_the_connection(peer, connect):
    def twice(line):
        line.send(line.message["args"])
        line.send(line.message["args"])

    client = connect(peer(twice), dialect="bare", retries=3)
    for number in range(5):
        assert client.call("f", [number]).get(timeout=5) == [number]
        gevent.sleep(0.01)


def test_a_server_that_hangs_up(peer, connect):
    with pytest.raises(WorkerLost, match="closed by the peer"):
        connect(peer(lambda line: line.socket.shutdown(2)), dialect="bare").call("f").get(timeout=5)
