"""The gate over a real listening socket in the real loop's epoll, as proc(5) shows it."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import gevent
import pytest

from gtask.server import epoll, gate
from gtask.server.gate import Gate

from ...support.loop import FakeLoop
from ...support.served import let_loop_turn, until

ALWAYS = 0x018  # EPOLLERR and EPOLLHUP, which each registration has


class Listening:
    """A listening socket, a watcher of the loop for it, and the gate over that."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind("")  # a name that no file has, unix(7)
        self.socket.listen(16)
        self.loop = gevent.get_hub().loop
        self.woken = 0
        self.watcher = self.loop.io(self.socket.fileno(), 1)
        self.watcher.start(self._wake)
        self.gate = Gate(self.loop, self.socket.fileno())
        self.peers = []

    def _wake(self):
        self.woken += 1
        accepted, _ = self.socket.accept()
        accepted.close()

    def connect(self):
        peer = socket.socket(socket.AF_UNIX)
        peer.setblocking(False)
        peer.connect(self.socket.getsockname())
        self.peers.append(peer)

    def registration(self):
        """The events that the socket is registered for, or None."""
        info = Path(f"/proc/self/fdinfo/{self.loop.fileno()}").read_text()
        for line in info.splitlines():
            words = line.split()
            if words[:1] == ["tfd:"] and int(words[1]) == self.socket.fileno():
                return int(words[3], 16) & ~ALWAYS
        return None

    def close(self):
        with contextlib.suppress(Exception):
            self.gate.close()
        self.watcher.stop()
        self.watcher.close()
        let_loop_turn()
        for each in (self.socket, *self.peers):
            each.close()


@pytest.fixture
def listening():
    made = Listening()
    yield made
    made.close()


def test_the_loops_registration_becomes_an_exclusive_one(listening):
    assert listening.registration() is None
    let_loop_turn()
    assert listening.registration() == epoll.IN | epoll.EXCLUSIVE
    listening.connect()
    until(lambda: listening.woken == 1)


def test_shut_the_process_is_not_woken_and_open_again_it_is(listening):
    let_loop_turn()
    listening.gate.shut()
    assert listening.registration() is None
    listening.connect()
    let_loop_turn()
    assert listening.woken == 0
    listening.gate.shut()
    listening.gate.open()
    listening.gate.open()
    assert listening.registration() == epoll.IN | epoll.EXCLUSIVE
    until(lambda: listening.woken == 1)


def test_shut_before_the_loop_has_turned_it_stays_shut(listening):
    listening.gate.shut()
    listening.connect()
    let_loop_turn()
    assert listening.registration() is None
    assert listening.woken <= 1, "the loop may have looked before we took over"
    listening.gate.open()
    listening.connect()
    until(lambda: listening.woken == 2)


def test_another_one_is_opened_and_shut_with_it(listening):
    other = Listening()
    listening.gate.link(other.gate)
    let_loop_turn()
    listening.gate.shut()
    assert not other.gate.is_open
    assert other.registration() is None
    listening.gate.open()
    assert other.registration() == epoll.IN | epoll.EXCLUSIVE
    listening.gate.close()
    assert not other.gate.is_open
    other.close()


def test_closed_it_leaves_no_registration(listening):
    let_loop_turn()
    listening.gate.close()
    assert listening.registration() is None
    assert not listening.gate.is_open


def test_a_forked_child_leaves_the_registration_to_its_parent(listening):
    let_loop_turn()
    listening.gate.after_fork_in_child()
    assert listening.registration() == epoll.IN | epoll.EXCLUSIVE
    assert not listening.gate.is_open


@pytest.mark.parametrize("bytes_read", [0, 5])
def test_where_the_registration_is_not_found_the_plain_one_stays(
    listening, monkeypatch, bytes_read
):
    monkeypatch.setattr(gate, "FDINFO_BYTES", bytes_read)
    let_loop_turn()
    assert listening.registration() == epoll.IN
    listening.gate.shut()
    assert listening.registration() == epoll.IN, "it only costs"
    listening.connect()
    until(lambda: listening.woken == 1)


def test_where_the_kernel_refuses_an_exclusive_one_the_plain_one_is_made_again(
    listening, monkeypatch
):
    control = epoll.control

    def refuse(poll, operation, fd, event):
        is_exclusive = operation == epoll.ADD and event.events & epoll.EXCLUSIVE
        return not is_exclusive and control(poll, operation, fd, event)

    monkeypatch.setattr(epoll, "control", refuse)
    let_loop_turn()
    assert listening.registration() == epoll.IN
    listening.connect()
    until(lambda: listening.woken == 1)


def test_without_an_epoll_to_be_found_nothing_happens(caplog):
    """What the fake loop of other tests has: a gate that is nothing but open or shut."""
    loop = FakeLoop()
    plain = Gate(loop, 5)
    loop.turn()
    plain.shut()
    assert not plain.is_open
    plain.open()
    assert plain.is_open
    plain.close()
    assert not loop.timers
