"""`CallbackService` over socketpairs: whom it calls, when, and what it tells of it."""

from __future__ import annotations

import _socket
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.event
import gevent.socket
import pytest

from gtask import Worker
from gtask.callbacks import CONNECTION_CALLBACKS
from gtask.net.reactor import current_reactor
from gtask.scoreboard import Scoreboard
from gtask.server.callbacks import CLOSE_SECONDS, CallbackService
from gtask.server.stats import WorkerStats

from ...support.hub import until


class Service:
    """A `CallbackService` whose worker notes its events.

    Attributes:
        events: (name, the connection, further arguments), in order.
    """

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.worker = Worker("text://127.0.0.1:0")
        for name in CONNECTION_CALLBACKS:
            setattr(self.worker, name, self._recorder(name))
        self.stats = WorkerStats(Scoreboard(1))
        self.service = CallbackService(self.worker, current_reactor(), self.stats)
        self._peers: list[Any] = []

    def _recorder(self, name: str) -> Callable[..., None]:
        return lambda connection, *args: self.events.append((name, connection, *args))

    def connect(self) -> tuple[Any, Any]:
        """A peer, and the connection that the service has with it."""
        near, far = gevent.socket.socketpair()
        known = set(self.service.connections)
        self.stats.accepted()
        self.service.accept(_socket.socket(far.family, far.type, 0, far.detach()), ("::1", 5))
        (id,) = set(self.service.connections) - known
        self._peers.append(near)
        return near, self.service.connections[id]

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The further arguments of the events of that name."""
        return [event[2:] for event in self.events if event[0] == name]

    def close(self) -> None:
        self.service.abort()
        for peer in self._peers:
            peer.close()


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


def test_a_connection_begins_with_the_callbacks_of_its_worker(service):
    peer, connection = service.connect()
    peer.sendall(b"one\ntwo\n")
    until(lambda: len(service.events) == 3)
    assert service.events == [
        ("on_connect", connection),
        ("on_message", connection, "one"),
        ("on_message", connection, "two"),
    ]
    assert connection.worker is service.worker
    assert connection.remote_address == "[::1]:5"


def test_callbacks_of_one_connection_in_order_and_never_two_at_once(service):
    running: list[Any] = []
    order: list[str] = []

    def slow(connection: Any, data: str) -> None:
        running.append(connection)
        assert len(running) == 1
        gevent.sleep(0.001)
        order.append(data)
        running.pop()

    service.worker.on_message = slow
    peer, _ = service.connect()
    for number in range(30):
        peer.sendall(b"%d\n" % number)
        gevent.sleep(0.0005)
    until(lambda: len(order) == 30)
    assert order == [str(number) for number in range(30)]


def test_connections_do_not_wait_for_each_other(service):
    gate = gevent.event.Event()
    done: list[str] = []

    def work(connection: Any, data: str) -> None:
        if data == "block":
            gate.wait()
        done.append(data)

    service.worker.on_message = work
    blocked, _ = service.connect()
    quick, _ = service.connect()
    blocked.sendall(b"block\n")
    until(lambda: service.service.running)
    quick.sendall(b"quick\n")
    until(lambda: done == ["quick"])
    gate.set()
    until(lambda: done == ["quick", "block"])


@pytest.mark.parametrize(
    "end",
    [
        lambda peer, connection: peer.close(),
        lambda peer, connection: peer.shutdown(_socket.SHUT_WR),
        lambda peer, connection: connection.close(),
        lambda peer, connection: connection.destroy(),
        lambda peer, connection: [connection.close(), connection.destroy(), peer.close()],
    ],
)
def test_there_is_one_on_close_for_each_connection(service, end):
    peer, connection = service.connect()
    until(lambda: service.named("on_connect"))
    end(peer, connection)
    until(lambda: service.named("on_close"))
    gevent.sleep(0.02)
    assert service.events == [("on_connect", connection), ("on_close", connection)]
    assert service.service.connections == {}
    assert service.stats.connections == 0


@pytest.mark.parametrize(
    "error", [RuntimeError("on purpose"), gevent.Timeout(1), SystemExit(3), KeyboardInterrupt()]
)
def test_an_exception_closes_its_connection_and_no_other(service, caplog, error):
    def fail(connection: Any, data: str) -> None:
        raise error

    _, other = service.connect()
    until(lambda: service.named("on_connect"))
    service.worker.on_message = fail
    peer, failing = service.connect()
    peer.sendall(b"1\n2\n")
    until(lambda: service.named("on_close"))
    assert service.events[-1] == ("on_close", failing)
    assert list(service.service.connections.values()) == [other]
    assert caplog.text.count("on_message failed") == 1
    assert repr(failing).split(" CLOSED")[0] in caplog.text
    until(lambda: service.service.running == 0)


def test_what_the_scoreboard_and_the_operator_are_told(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    peer, _ = service.connect()
    until(lambda: service.named("on_connect"))
    done = service.stats.done
    peer.sendall(b"block\n")
    until(lambda: service.service.running == 1)
    assert service.stats.running == 1
    assert service.stats.done == done + 1
    (line,) = service.service.report()
    assert line["peer"] == "[::1]:5"
    assert line["protocol"] == "text"
    assert line["outstanding"] == 1
    assert line["bytes_read"] == 6
    assert not service.service.is_idle
    gate.set()
    until(lambda: service.stats.running == 0)
    assert service.service.report()[0]["outstanding"] == 0


def test_closing_idle_connections_spares_busy_ones_and_those_that_send(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    _, idle = service.connect()
    _, fed = service.connect()
    busy_peer, busy = service.connect()
    busy_peer.sendall(b"block\n")
    until(lambda: service.service.running == 1)
    for connection in (idle, fed, busy):
        connection.last_active -= 100
    fed.send("news")
    service.service.close_idle(50.0)
    until(lambda: service.named("on_close"))
    assert list(service.service.connections.values()) == [fed, busy]
    gate.set()


def test_a_drain_waits_for_a_message_that_is_half_here(service):
    peer, connection = service.connect()
    peer.sendall(b"half a mess")
    until(lambda: connection._kept_bytes)
    service.service.drain()
    service.service.close_idle(-1)
    peer.sendall(b"age\n")
    until(lambda: service.named("on_message") == [("half a message",)])
    until(lambda: not connection.is_busy)
    service.service.close_idle(-1)
    until(lambda: service.named("on_close"))


def test_a_drain_ends_when_the_last_callback_has(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    peer, connection = service.connect()
    peer.sendall(b"block\n")
    until(lambda: service.service.running == 1)
    connection.last_active -= 100
    service.service.drain()
    assert not service.service.is_idle
    gate.set()
    until(lambda: service.service.running == 0)
    connection.last_active -= 100
    service.service.close_idle(1.0)
    assert service.service.is_idle
    service.service.abort()
    assert service.named("on_close") == [()]


def test_aborting_has_every_end_told_but_waits_for_no_callback_that_is_stuck(service):
    gate = gevent.event.Event()
    service.worker.on_message = lambda connection, data: gate.wait()
    peer, stuck = service.connect()
    peer.sendall(b"block\n")
    until(lambda: service.service.running == 1 and not stuck._events)
    others = {service.connect()[1] for _ in range(3)}
    until(lambda: len(service.named("on_connect")) == 4)
    with gevent.Timeout(CLOSE_SECONDS / 2):
        service.service.abort()
    assert {event[1] for event in service.events if event[0] == "on_close"} == others
    gate.set()
    until(lambda: service.events[-1] == ("on_close", stuck))


def test_a_child_that_was_forked_hears_nothing(service):
    peer, _ = service.connect()
    until(lambda: service.named("on_connect"))
    peer.sendall(b"for the parent\n")
    service.service.after_fork_in_child()
    with pytest.raises(
        ConnectionResetError
    ):  # nobody has the connection any more: it was read by none
        peer.recv(10)
    gevent.sleep(0.02)
    assert service.named("on_message") == service.named("on_close") == []
