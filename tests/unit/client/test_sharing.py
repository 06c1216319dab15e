"""The moment that calls wait for connections which are opening."""

from __future__ import annotations

from gtask.client.sharing import SECONDS, SLOW_SECONDS, STEP_SECONDS, Sharing


def test_a_moment_and_a_longer_one_after_an_outage(make_world):
    world = make_world()
    told = []

    def end():
        told.append("end")
        sharing.stop()

    sharing = Sharing(world.pool.reactor, end, lambda: told.append("step"))
    sharing.begin()
    sharing.begin()
    assert sharing.is_on
    world.wait(SECONDS * 1.1)
    assert told == ["end"]
    assert not sharing.is_on
    sharing.begin()
    sharing.begin_slowly()
    assert sharing.is_slow
    world.wait(SLOW_SECONDS * 1.1)
    assert told[-1] == "end"
    assert told.count("step") in (int(SLOW_SECONDS / STEP_SECONDS) - 1, 5)
    assert not world.watchers
