"""Which endpoint takes a call: those with few calls, not those with many connections."""

from __future__ import annotations

from collections import Counter

import pytest

from gtask.errors import Overloaded

OVERLOADED = -32000


def hosts_of(world) -> Counter[str]:
    """Calls under way, by host."""
    counts: Counter[str] = Counter()
    for connection in world.pool.connections:
        counts[connection.endpoint.address.host[-1]] += len(connection.calls)
    return counts


@pytest.fixture
def world(make_world):
    """Two hosts; the first has four connections, the other one has come back with one."""
    world = make_world(hosts=2, connections=4, max_pending=1000)
    world.call()
    world.connect(world.opened[0])
    world.pong(world.opened[0])
    for _ in range(12):
        world.call()
    for _ in range(20):
        for connection in list(world.opened):
            if not world.is_connecting(connection):
                continue
            if connection.endpoint is world.pool.endpoints[0]:
                world.connect(connection)
                world.pong(connection)
            else:
                world.refuse(connection)
        world.wait(0.001)
    return world


def test_an_endpoint_that_comes_back_gets_its_share_with_one_connection(world):
    world.wait(0.3)
    (back,) = (each for each in world.opened if world.is_connecting(each))
    world.connect(back)
    world.pong(back)
    before = hosts_of(world)["1"]
    for _ in range(100):
        world.call()
    counts = hosts_of(world)
    assert counts["2"] == pytest.approx((before + 100) / 2, abs=2)
    world.finish()


def test_a_repetition_goes_to_another_endpoint_first(make_world):
    world = make_world(hosts=2, connections=1)
    call = world.call(retries=1)
    for connection in world.opened:
        world.connect(connection)
        world.pong(connection)
    (first,) = world.places(1)
    world.answer(world.opened[int(first)], 1, OVERLOADED)
    world.wait(0.2)
    (second,) = world.places(1)
    assert {first, second} == {"0", "1"}
    world.answer(world.opened[int(second)], 1, OVERLOADED)
    assert type(call.error) is Overloaded
    world.finish()


def test_what_refuses_is_tried_now_and_then_and_has_its_share_again_when_it_answers(make_world):
    world = make_world(hosts=2, connections=1, max_pending=1000)
    world.call()
    for connection in world.opened:
        world.connect(connection)
        world.pong(connection)
    refused = Counter()
    for _ in range(400):  # each call takes 10 ms, but at the second host, which refuses it at once
        for _ in range(5):
            world.call()
        for connection in list(world.pool.connections):
            for id in list(connection.calls):
                bad = connection.endpoint is world.pool.endpoints[1]
                refused[bad] += 1
                world.answer(connection, id, OVERLOADED if bad else None)
        world.wait(0.01)
    assert 1 <= refused[True] < 0.05 * refused[False]
    world.wait(30)
    refused.clear()
    for _ in range(40):
        world.call()
    assert hosts_of(world) == {"1": 20, "2": 20}
    world.finish()
