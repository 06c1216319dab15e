"""Who comes into a worker process, and who does not."""

from __future__ import annotations

import _socket
import ipaddress
import socket

import pytest

from gtask import Worker, task
from gtask import scoreboard as board
from gtask.net.reactor import current_reactor
from gtask.scoreboard import Scoreboard
from gtask.server.engine import Engine
from gtask.server.entrance import Entrance
from gtask.server.service import TaskService
from gtask.server.stats import WorkerStats


@task
def echo(value=None):
    return value


class Process:
    """What is around an entrance."""

    def __init__(self, **options):
        worker = Worker("text+unix:///unused", name="W", tasks=[echo], **options)
        worker.load()
        settings = worker.settings()
        self.board = Scoreboard(1)
        self.stats = WorkerStats(self.board)
        self.stats.boot(0, 1)
        reactor = current_reactor()
        self.entrance = Entrance(settings, reactor, self.stats, [], None, None, is_strict=False)
        engine = Engine(
            worker.served,
            reactor,
            self.stats,
            concurrency=settings.concurrency,
            task_timeout=settings.task_timeout,
            max_frame_bytes=settings.max_frame_bytes,
            max_batch=settings.max_batch,
            max_send_buffer_bytes=settings.max_send_buffer_bytes,
        )
        self.service = self.entrance.service = TaskService(engine)


@pytest.fixture
def make():
    made = []

    def make(**options):
        made.append(Process(**options))
        return made[-1]

    yield make
    for process in made:
        process.service.abort()


@pytest.mark.parametrize(
    ("allow", "address", "may_connect"),
    [
        (["10.0.0.0/8"], ("10.1.2.3", 1), True),
        (["10.0.0.0/8"], ("11.1.2.3", 1), False),
        (["10.0.0.0/8", "127.0.0.1"], ("127.0.0.1", 1), True),
        (["10.0.0.0/8"], ("::ffff:10.1.2.3", 1, 0, 0), True),
        (["10.0.0.0/8"], ("::ffff:11.1.2.3", 1, 0, 0), False),
        (["fe80::/10"], ("fe80::1%eth0", 1, 0, 2), True),
        (["10.0.0.0/8"], ("fe80::1%eth0", 1, 0, 2), False),
        (["10.0.0.0/8"], "", True),
        (["10.0.0.0/8"], b"\0abstract", True),
    ],
)
def test_only_the_networks_of_allow_come_in(make, allow, address, may_connect):
    process = make(allow=[ipaddress.ip_network(each) for each in allow])
    peer, client = socket.socketpair()
    process.entrance.accept(_socket.socket(fileno=client.detach()), address)
    assert process.board.ints[board.REFUSED] == (not may_connect)
    assert process.board.ints[board.ACCEPTED] == process.stats.connections == may_connect
    if not may_connect:
        assert peer.recv(1) == b""
    peer.close()


def test_a_connection_that_fails_on_its_way_is_not_counted_for_ever(make):
    process = make(max_connections=1)
    with pytest.raises(AttributeError):
        process.entrance.accept(None, ("10.1.2.3", 1))
    assert process.stats.connections == 0
    assert not process.entrance.is_full()
    assert process.service.is_idle


def test_it_is_full_with_max_connections(make):
    process = make(max_connections=2)
    process.stats.accepted()
    assert not process.entrance.is_full()
    process.stats.accepted()
    assert process.entrance.is_full()
