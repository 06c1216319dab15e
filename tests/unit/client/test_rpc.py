"""JSON-RPC: whatever a peer says, each answer goes to its own call or is dropped."""

from __future__ import annotations

import gevent
import pytest

from gtask.client import wait
from gtask.errors import InternalError, TaskTimedOut, WorkerLost

from .peers import Outcome, echo, pool_of, ready, wait_for


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


def test_a_malformed_error(peer, connect):
    def answer(line):
        line.send({"jsonrpc": "2.0", "error": "just text", "id": line.id})

    with pytest.raises(InternalError, match="malformed"):
        connect(peer(answer)).call("f").get(timeout=5)


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
