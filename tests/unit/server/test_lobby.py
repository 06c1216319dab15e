"""The lobby: connections are passed on whole, in order, with their peers' addresses."""

from __future__ import annotations

import _socket
import os
import socket

import pytest

from gtask import native
from gtask.server.lobby import Lobby


def pair():
    near, far = socket.socketpair()
    return near, _socket.socket(fileno=far.detach())


@pytest.mark.parametrize("address", [("127.0.0.1", 1), ("::1", 2, 0, 3), "", b"\0abstract\xff"])
def test_a_connection_is_passed_on(address):
    lobby = Lobby(native.seqpacket_pair())
    near, far = pair()
    near.sendall(b"unread\n")
    assert lobby.put(far, address)
    assert far.fileno() == -1
    taken, of = lobby.take()
    assert of == address
    assert taken.recv(100) == b"unread\n"
    taken.send(b"answer")
    assert near.recv(10) == b"answer"
    assert not os.get_inheritable(taken.fileno())
    taken.close()
    near.close()


def test_they_come_in_order_and_then_none():
    lobby = Lobby(native.seqpacket_pair())
    assert lobby.take() is None
    nears = []
    for number in range(5):
        near, far = pair()
        nears.append(near)
        assert lobby.put(far, ("", number))
    assert [lobby.take()[1] for _ in range(5)] == [("", number) for number in range(5)]
    assert lobby.take() is None


def test_a_lobby_has_its_bounds():
    lobby = Lobby(native.seqpacket_pair())
    kept = []
    while len(kept) < 10_000:
        near, far = pair()
        near.close()
        if not lobby.put(far, ()):
            assert far.fileno() >= 0  # it is still ours
            break
        kept.append(1)
        if len(kept) > 500:
            pytest.skip("this kernel keeps many")
    assert len(kept) > 50
    while lobby.take() is not None:
        kept.pop()
    assert not kept
