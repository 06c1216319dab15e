"""PROXY headers before a connection is served, over socket pairs on this process's own hub."""

from __future__ import annotations

import _socket
import ipaddress
import os
import socket

import gevent
import gevent.socket
import pytest

from gtask.net.reactor import current_reactor
from gtask.scoreboard import Scoreboard
from gtask.server.networks import Networks
from gtask.server.reception import Reception
from gtask.server.stats import WorkerStats

from ...support.served import let_loop_turn, until

PROXY = ("10.0.0.1", 40000)
LINE = b"PROXY TCP4 203.0.113.9 10.0.0.2 51000 12345\r\n"
CLIENT = ("203.0.113.9", 51000)


class Desk:
    """A reception and what it has let through."""

    def __init__(self, timeout=10.0, allow=()):
        self.stats = WorkerStats(Scoreboard(1))
        self.stats.boot(0, os.getpid())
        self.served = []
        networks = Networks(tuple(map(ipaddress.ip_network, allow)))
        self.reception = Reception(current_reactor(), self.stats, networks, timeout, self.serve)

    def serve(self, client, address):
        self.served.append((client, address))

    def connect(self, begun=b""):
        theirs, ours = socket.socketpair()
        theirs.sendall(begun)
        self.stats.accepted()
        self.reception.receive(_socket.socket(fileno=ours.detach()), PROXY)
        return gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, fileno=theirs.detach())


def has_ended(peer):
    with gevent.Timeout(10):
        try:
            return peer.recv(100) == b""
        except ConnectionResetError:  # something was left unread
            return True


def test_a_header_that_is_there_is_read_at_once_and_nothing_behind_it():
    desk = Desk()
    desk.connect(LINE + b"hello")
    ((client, address),) = desk.served
    assert address == CLIENT
    assert client.recv(100) == b"hello"
    assert desk.reception.is_idle
    assert desk.stats.connections == 1


def test_a_header_that_comes_late_and_in_pieces():
    desk = Desk()
    peer = desk.connect()
    for byte in LINE:
        assert desk.served == []
        peer.sendall(bytes([byte]))
        let_loop_turn(2)
    assert until(lambda: desk.served)[0][1] == CLIENT
    desk.served[0][0].close()


def test_a_proxy_that_speaks_for_itself():
    desk = Desk()
    desk.connect(b"PROXY UNKNOWN\r\n")
    assert desk.served[0][1] == PROXY


@pytest.mark.parametrize("begun", [b"hello\n", LINE[:-2] + b" \r\n"])
def test_what_is_no_header(begun):
    desk = Desk()
    peer = desk.connect(begun)
    assert has_ended(peer)
    assert desk.served == []
    assert desk.stats.connections == 0
    assert desk.reception.is_idle


def test_a_header_has_to_come_in_time():
    desk = Desk(timeout=0.05)
    peer = desk.connect(LINE[:10])
    assert has_ended(peer)
    assert (desk.served, desk.stats.connections) == ([], 0)


def test_a_proxy_that_goes():
    desk = Desk()
    desk.connect(LINE[:10]).close()
    until(lambda: desk.reception.is_idle)
    assert (desk.served, desk.stats.connections) == ([], 0)


def test_clients_that_may_not_connect():
    desk = Desk(allow=["198.51.100.0/24"])
    assert has_ended(desk.connect(LINE))
    assert (desk.served, desk.stats.connections) == ([], 0)


def test_a_service_that_fails_costs_one_connection(caplog):
    desk = Desk()

    def fail(client, address):
        raise RuntimeError("on purpose")

    desk.reception._serve = fail
    assert has_ended(desk.connect(LINE))
    assert "on purpose" in caplog.text
    assert desk.reception.is_idle


def test_those_that_say_nothing_are_given_up():
    desk = Desk()
    peer = desk.connect()
    desk.reception.close_idle(10)
    assert not desk.reception.is_idle
    gevent.sleep(0.02)
    desk.reception.close_idle(0.01)
    assert desk.reception.is_idle
    assert has_ended(peer)
