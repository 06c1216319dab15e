"""What a worker's connection needs of its service: three methods, each called when it is promised."""

from __future__ import annotations

import _socket
from typing import Any

import gevent
import gevent.socket

from gtask import Worker
from gtask.net.reactor import current_reactor
from gtask.server.worker_connection import WorkerConnection

from ...support.hub import until


class Owner:
    """A service that notes what its connections tell it."""

    def __init__(self) -> None:
        self.worker = Worker("text://127.0.0.1:0", max_frame_bytes=50, max_send_buffer_bytes=60)
        self.reactor = current_reactor()
        self.told: list[Any] = []

    def entered(self) -> None:
        self.told.append("entered")

    def finished(self) -> None:
        self.told.append("finished")

    def forget(self, connection: WorkerConnection) -> None:
        self.told.append(connection)


def test_its_owner_is_told_of_each_run_and_of_the_end():
    owner = Owner()
    owner.worker.on_message = lambda connection, data: owner.told.append(data)
    owner.worker.on_close = lambda connection: owner.told.append("close")
    connection = WorkerConnection(owner)
    assert connection.max_send_buffer_bytes == 60
    near, far = gevent.socket.socketpair()
    connection._accept(_socket.socket(far.family, far.type, 0, far.detach()), "")
    until(lambda: owner.told == ["entered", "finished"])
    owner.told.clear()
    near.sendall(b"1\n2\n")
    until(lambda: owner.told[-1:] == ["finished"])
    assert owner.told == ["entered", "1", "2", "finished"]
    assert not connection.is_busy
    owner.told.clear()
    near.sendall(b"x" * 51)
    until(lambda: owner.told[-1:] == ["finished"])
    assert owner.told == ["entered", connection, "close", "finished"]
    near.close()


def test_its_callbacks_are_its_own_once_it_is_there():
    owner = Owner()
    owner.worker.on_message = first = lambda connection, data: None
    one, two = WorkerConnection(owner), WorkerConnection(owner)
    one.on_message = None
    assert two.on_message is first
    assert owner.worker.on_message is first


def test_sending_is_activity():
    connection = WorkerConnection(Owner())
    connection.last_active -= 100
    before = connection.last_active
    connection.send("news")
    assert connection.last_active > before
