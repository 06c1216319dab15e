"""An address that refuses is left alone for a while, and is tried again."""

from __future__ import annotations

import socket

import pytest
from gevent.server import StreamServer

from gtask.address import parse_address
from gtask.client.endpoint import Endpoint
from gtask.errors import WorkerLost

from .peers import Outcome, pool_of, wait_for

NO_PORT = "text://127.0.0.1:1"


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
    client = connect(f"text://127.0.0.1:{port}")
    call = client.call("f", [1])
    wait_for(lambda: pool_of(client).endpoints[0].failures)
    assert not call.done
    server = peer()
    late = StreamServer(("127.0.0.1", port), server._serve)
    late.start()
    assert call.get(timeout=5) == [1]
    late.stop(timeout=0)


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


@pytest.fixture
def world(make_world):
    return make_world()


def test_it_is_left_alone_the_longer_the_more_often_it_fails(world):
    tried = []
    endpoint = Endpoint(world.pool.reactor, parse_address(NO_PORT), 2, tried.append)
    pauses = []
    for _ in range(9):
        before = world.now
        endpoint.failed("Connection refused")
        assert endpoint.is_down
        assert not endpoint.has_room
        while endpoint.is_down:
            world.wait(0.05)
        pauses.append(world.now - before)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0], abs=0.06)
    assert tried == [endpoint] * 9
    assert repr(endpoint) == f"<Endpoint {NO_PORT} up 0>"


def test_a_second_failure_while_it_is_down_changes_the_reason_only(world):
    endpoint = Endpoint(world.pool.reactor, parse_address(NO_PORT), 2, lambda _: None)
    endpoint.failed("Connection refused")
    endpoint.failed("timed out")
    assert (endpoint.failures, endpoint.why) == (1, "timed out")


def test_one_that_has_failed_has_room_for_one_connection_until_it_works(world):
    endpoint = Endpoint(world.pool.reactor, parse_address(NO_PORT), 2, lambda _: None)
    endpoint.failed("Connection refused")
    endpoint.close()
    endpoint.in_use = 1
    assert not endpoint.has_room
    endpoint.worked()
    assert endpoint.has_room
    endpoint.in_use = 2
    assert not endpoint.has_room
