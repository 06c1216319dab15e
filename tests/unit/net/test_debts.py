"""Debts: who stands still for too long is ended, and who is slowest when too much is held."""

from __future__ import annotations

import gevent
import pytest

from gtask.net import debts as module
from gtask.net.debts import LEAST_BYTES, Debtor, Debts

from ...support.loop import FakeLoop


class Peer(Debtor):
    """A stream of which the test says how it is."""

    def __init__(self, debts, must_take=True):
        self.debts = debts
        self.must_take = must_take
        self.sent = 0
        self.is_read = self.has_unread = self.is_secured = self.is_broken = False
        self.reasons = []

    def _sent_bytes(self):
        if self.is_broken:
            raise RuntimeError("broken")
        return self.sent

    def _must_take(self):
        return self.must_take

    def _is_read(self):
        return self.is_read

    def _has_unread(self):
        return self.has_unread

    def _is_secured(self):
        return self.is_secured

    def _give_up(self, reason, is_full):
        self.reasons.append((reason, is_full))
        self.debts.forget(self)

    @property
    def has_ended(self):
        return bool(self.reasons)


class World:
    def __init__(self, monkeypatch):
        self.loop = FakeLoop()
        monkeypatch.setattr(module, "monotonic", self.loop.clock)
        self.debts = Debts(self.loop)

    def peer(self, **options):
        return Peer(self.debts, **options)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch)


def test_a_peer_that_takes_nothing_is_ended(world):
    peer = world.peer()
    world.debts.owes_taking(peer, 1000, 0)
    world.loop.advance(29)
    assert not peer.has_ended
    world.loop.advance(3)
    assert peer.reasons == [("took nothing for 30 s", False)]
    assert world.debts.unsent_bytes == 0
    assert not world.loop.timers


def test_one_that_takes_a_little_now_and_then_is_not(world):
    peer = world.peer()
    world.debts.owes_taking(peer, 1000, 0)
    for _ in range(10):
        world.loop.advance(25)
        peer.sent += 1
    assert not peer.has_ended


def test_one_that_the_loop_came_to_late_is_not(world):
    """The time limit passes while the process is busy; the kernel takes more as soon as it is offered."""
    peer = world.peer()
    world.debts.owes_taking(peer, 1000, 0)
    world.loop.clock.now += 100
    peer.sent += 1
    world.loop.turn()
    assert not peer.has_ended


def test_whose_caller_knows_how_long_to_wait_is_not_ended(world):
    peer = world.peer(must_take=False)
    world.debts.owes_taking(peer, 1000, 0)
    world.loop.advance(1000)
    assert not peer.has_ended
    peer.must_take = True
    world.loop.advance(2)
    assert peer.has_ended


def test_a_frame_must_go_on(world):
    peer = world.peer()
    peer.is_read = True
    world.debts.owes_rest(peer, 10, False)
    for number in range(1, 40):  # a byte a second
        world.debts.owes_rest(peer, 10 + number, False)
        world.loop.advance(1)
    assert peer.reasons == [("no more of a frame for 30 s", False)]


def test_a_frame_that_goes_on_slowly_is_waited_for(world):
    peer = world.peer()
    peer.is_read = True
    size = 0
    for _ in range(100):
        size += LEAST_BYTES
        world.debts.owes_rest(peer, size, False)
        world.loop.advance(20)
    assert not peer.has_ended


def test_many_small_frames_in_halves_are_no_frame_that_stands_still(world):
    peer = world.peer()
    peer.is_read = True
    for _ in range(100):
        world.debts.owes_rest(peer, 5, True)
        world.loop.advance(20)
    assert not peer.has_ended


def test_a_peer_that_is_not_read_now_is_not_judged(world):
    peer = world.peer()
    world.debts.owes_rest(peer, 5, False)
    world.loop.advance(100)
    assert not peer.has_ended
    peer.is_read = True
    world.loop.advance(29)
    assert not peer.has_ended
    world.loop.advance(3)
    assert peer.has_ended


def test_a_handshake_must_come_to_its_end(world):
    first, late, done = world.peer(), world.peer(), world.peer()
    for peer in (first, late, done):
        peer.is_read = True
    world.debts.owes_handshake(first)
    world.debts.owes_handshake(done)
    world.loop.advance(5)
    world.debts.owes_handshake(late)
    done.is_secured = True
    world.loop.advance(6)
    assert (first.has_ended, late.has_ended, done.has_ended) == (True, False, False)
    world.loop.advance(5)
    assert late.reasons == [("TLS: no handshake within 10 s", False)]
    assert not world.loop.timers


@pytest.mark.parametrize("timeout", ["send_timeout", "handshake_timeout"])
def test_a_limit_of_zero_is_none(world, timeout):
    setattr(world.debts, timeout, 0)
    peer = world.peer()
    peer.is_read = True
    if timeout == "send_timeout":
        world.debts.owes_taking(peer, 5, 0)
        world.debts.owes_rest(peer, 5, True)
    else:
        world.debts.owes_handshake(peer)
    world.loop.advance(10_000)
    assert not peer.has_ended


def test_what_is_paid_or_forgotten_is_not_counted(world):
    peer, other = world.peer(), world.peer()
    for size in (10, 500, 20, 0, 0, 7):
        world.debts.owes_taking(peer, size, 0)
        world.debts.owes_rest(other, size, True)
    assert world.debts.unsent_bytes == world.debts.unfinished_bytes == 7
    world.debts.forget(peer)
    world.debts.forget(other)
    world.debts.forget(other)
    assert world.debts.unsent_bytes == world.debts.unfinished_bytes == 0
    world.loop.advance(2)
    assert not world.loop.timers


@pytest.mark.parametrize("kind", ["unsent", "unfinished"])
def test_past_the_bound_those_go_that_stood_still_longest(world, kind):
    debts = world.debts
    debts.max_bytes = 1000
    peers = [world.peer() for _ in range(10)]
    for peer in peers:
        peer.is_read = True
        if kind == "unsent":
            debts.owes_taking(peer, 95, 0)
        else:
            debts.owes_rest(peer, 95, True)
        world.loop.advance(2)
    assert not any(peer.has_ended for peer in peers)
    if kind == "unsent":
        peers[0].sent = 1  # it goes on
        world.loop.advance(2)
        debts.owes_taking(peers[0], 150, 1)
    else:
        debts.owes_rest(peers[0], 150, True)
    world.loop.turn()
    assert [peer.has_ended for peer in peers] == [False, True, True, *[False] * 7]
    assert peers[1].reasons[0][1]
    assert getattr(debts, f"{kind}_bytes") <= 1000 - 1000 // 8


def test_of_those_who_came_at_once_the_largest_goes(world):
    world.debts.max_bytes = 1000
    peers = [world.peer() for _ in range(3)]
    for peer, size in zip(peers, (300, 500, 300), strict=True):
        world.debts.owes_rest(peer, size, True)
    world.loop.turn()
    assert [peer.has_ended for peer in peers] == [False, True, False]


def test_one_that_fails_does_not_cost_the_others_their_limits(world, caplog):
    broken, peer = world.peer(), world.peer()
    broken.is_broken = True
    for each in (broken, peer):
        world.debts.owes_taking(each, 5, 0)
    world.loop.advance(40)
    assert peer.has_ended
    assert "its time limits failed" in caplog.text


def test_a_forked_child_ends_nobody(world):
    peer = world.peer()
    world.debts.owes_taking(peer, 5, 0)
    world.debts.after_fork_in_child()
    world.loop.advance(100)
    assert not peer.has_ended


def test_what_was_not_read_yet_is_waited_for_but_is_no_step_forward(world):
    peer = world.peer()
    peer.is_read = peer.has_unread = True
    world.debts.owes_rest(peer, 5, False)
    world.debts.owes_handshake(peer)
    world.loop.advance(100)
    assert not peer.has_ended
    peer.has_unread = False
    world.loop.advance(2)
    assert peer.has_ended


def test_it_looks_as_often_as_it_says_and_no_more():
    debts = Debts(gevent.get_hub().loop)
    debts.send_timeout = 0.2
    peer = Peer(debts)
    looks = []
    peer._sent_bytes = lambda: looks.append(1) or len(looks)
    debts.owes_taking(peer, 5, 0)
    for _ in range(100):
        gevent.sleep(0.005)
    assert 5 < len(looks) <= 12
    debts.forget(peer)
