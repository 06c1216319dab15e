"""A connection pool in a world of its own: scripted sockets, and a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import inf
from types import SimpleNamespace
from typing import Any

import pytest
from gevent import get_hub

from gtask.address import parse_address
from gtask.client.calls import Call
from gtask.client.connection import READY, ClientConnection
from gtask.client.options import Options
from gtask.client.pool import ConnectionPool
from gtask.errors import TaskError
from gtask.net.debts import Debts
from gtask.net.reactor import Reactor
from gtask.net.stream import StreamState

PLENTY = 1 << 40
OPTIONS = {
    "connections": 2,
    "dialect": "jsonrpc",
    "keep_connections": True,
    "connect_timeout": 5.0,
    "patience": 3.0,
    "max_age": 0.0,
    "max_pending": 100,
    "max_frame_bytes": 10_000,
    "ssl_context": None,
}


class Watcher:
    """A timer of the fake loop; or an io watcher, whose part the test plays by calling the stream."""

    def __init__(self, world: World, seconds: float = inf, again: float = 0.0) -> None:
        self._world = world
        self._seconds = seconds
        self._again = again
        self.fires_at = inf
        self.callback: Callable[..., Any] | None = None
        self.args: tuple[Any, ...] = ()

    def start(self, callback: Callable[..., Any], *args: Any, update: bool = False) -> None:
        self.callback, self.args = callback, args
        self.fires_at = self._world.now + self._seconds
        self.stop()
        self._world.watchers.append(self)

    def stop(self) -> None:
        if self in self._world.watchers:
            self._world.watchers.remove(self)

    def fired(self) -> None:
        if self._again:
            self.fires_at += self._again
        else:
            self.stop()

    def close(self) -> None:
        self.stop()


class Loop:
    def __init__(self, world: World) -> None:
        self._world = world

    def timer(self, seconds: float, again: float = 0.0) -> Watcher:
        return Watcher(self._world, seconds, again)

    def io(self, _descriptor: int, _events: int) -> Watcher:
        return Watcher(self._world)

    def run_callback(self, callback: Callable[..., Any], *args: Any) -> None:
        self._world.callbacks.append((callback, args))


class FakeReactor(Reactor):
    """Runs what would be run in greenlets at once, as nothing here blocks."""

    def __init__(self, world: World) -> None:
        self.loop = Loop(world)
        self.hub = get_hub()
        self.lingering = set()
        self.debts = Debts(self.loop)

    def run(self, work: Callable[..., Any], *args: Any) -> None:
        work(*args)

    start = run


class Socket:
    """Takes `room` octets; the peer's kernel acknowledges nothing of the rest.

    Attributes:
        input: what lies there unread; b"" is the end of the stream.
    """

    def __init__(self, room: int = PLENTY) -> None:
        self.input: list[bytes] = []
        self.room = room
        self.output = b""
        self.is_closed = False

    def send(self, data: bytes, _flags: int) -> int:
        taken = bytes(data[: self.room])
        if not taken:
            raise BlockingIOError
        self.room -= len(taken)
        self.output += taken
        return len(taken)

    def recv(self, _size: int, _flags: int) -> bytes:
        if not self.input:
            raise BlockingIOError
        return self.input.pop(0)

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_option: Any) -> None: ...

    def shutdown(self, _how: int) -> None: ...

    def close(self) -> None:
        self.is_closed = True


class World:
    """One pool, its connections, and the ends of its calls.

    Attributes:
        now: the monotonic clock, in seconds.
        opened: every connection that the pool has ever opened, in order.
        ends: how the calls ended, by id; each should have one end.
    """

    def __init__(self, hosts: int = 1, **options: Any) -> None:
        self.now = 1000.0
        self.callbacks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.watchers: list[Watcher] = []
        self.opened: list[ClientConnection] = []
        self.calls: dict[int, Call] = {}
        self.ends: dict[int, list[str]] = {}
        self._patch = pytest.MonkeyPatch()
        for module in ("bare", "calls", "connection", "deadlines", "fleet", "pool", "rpc"):
            self._patch.setattr(f"gtask.client.{module}.monotonic", lambda: self.now)
        longest = SimpleNamespace(
            uniform=lambda _shortest, longest: longest, randrange=lambda count: count - 1
        )
        for module in ("connection", "endpoint", "fleet", "pool"):  # jitter at its longest
            self._patch.setattr(f"gtask.client.{module}.random", longest)
        self._patch.setattr("gtask.client.connection.Connector", self._connector)
        addresses = [parse_address(f"text://127.0.0.{number}:1") for number in range(1, hosts + 1)]
        self.pool = ConnectionPool(FakeReactor(self), addresses, Options(**{**OPTIONS, **options}))

    def close(self) -> None:
        self._patch.undo()

    def _connector(self, _reactor: Any, _address: Any, _timeout: float, connected: Any, _: Any):
        """Stands for a `Connector`: the test says how it ends."""
        self.opened.append(connected.__self__)
        return type("Attempt", (), {"start": lambda _: None, "cancel": lambda _: None})()

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> None:
        """What the loop would do before it waits."""
        while self.callbacks:
            callback, args = self.callbacks.pop(0)
            callback(*args)

    def wait(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        end = self.now + seconds
        self.run()
        while self.watchers:
            timer = min(self.watchers, key=lambda timer: timer.fires_at)
            if timer.fires_at > end:
                break
            self.now = max(self.now, timer.fires_at)
            timer.fired()
            timer.callback(*timer.args)
            self.run()
        self.now = end

    # -- the caller ---------------------------------------------------------------------------

    def call(
        self, retries: int = 0, timeout: float = 60.0, at_end: Callable[[], Any] | None = None
    ) -> Call:
        """Submit a call; `at_end` is user code."""
        id = self.pool.next_id()
        ends = self.ends[id] = []

        def end(how: str) -> None:
            ends.append(how)
            if at_end is not None:
                at_end()

        call = self.calls[id] = Call(
            self.pool,
            id,
            "f",
            b"[%d]" % id,
            lambda result: end("ok" if result == id else f"got {result}"),
            lambda error: end(describe(error)),
            None,
            None,
            timeout,
            retries,
        )
        self.pool.submit(call)
        return call

    # -- the network and the peers ------------------------------------------------------------

    def is_connecting(self, connection: ClientConnection) -> bool:
        return connection.state == StreamState.CONNECTING

    def connect(self, connection: ClientConnection, room: int = PLENTY) -> None:
        connection._connected(Socket(room))
        self.run()

    def refuse(self, connection: ClientConnection) -> None:
        connection._abort("Connection refused")
        self.run()

    def lose(self, connection: ClientConnection) -> None:
        connection._ended()
        self.run()

    def take(self, connection: ClientConnection) -> None:
        """The kernel has room for all that is to be sent."""
        connection._socket.room = PLENTY
        while connection._output:
            connection._writable()
        self.run()

    def say(self, connection: ClientConnection, *messages: Any) -> None:
        """The peer sends messages, which come in one read."""
        connection._received(b"".join(json.dumps(each).encode() + b"\n" for each in messages))
        self.run()

    def pong(self, connection: ClientConnection) -> None:
        self.say(connection, {"jsonrpc": "2.0", "result": "pong", "id": 0})

    def goaway(self, connection: ClientConnection) -> None:
        self.say(connection, {"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}})

    def answer(self, connection: ClientConnection, id: int, code: int | None = None) -> None:
        """The peer answers a call: with its number, or with an error of that code."""
        error = {"code": code, "message": "no"}
        if self.pool.options.dialect == "bare":
            self.say(connection, id if code is None else {"error": error})
        elif code is None:
            self.say(connection, {"jsonrpc": "2.0", "result": id, "id": id})
        else:
            self.say(connection, {"jsonrpc": "2.0", "error": error, "id": id})

    # -- what must hold -----------------------------------------------------------------------

    def places(self, id: int) -> list[str]:
        """Where an unfinished call is: on a connection, by its number, or waiting for something."""
        found = [
            str(number)
            for number, each in enumerate(self.opened)
            if each in self.pool.connections and id in each.calls
        ]
        if id in self.pool.waiting:
            found.append("waiting")
        if self.calls[id]._retry_at < inf:
            found.append("to be retried")
        return found

    def check(self) -> None:
        """No call has two ends; each without one is in one place, and no more than fits there."""
        self.run()
        for id, ends in self.ends.items():
            assert len(ends) <= 1, (id, ends)
            assert self.calls[id].done == bool(ends)
            assert (id in self.pool.calls) != bool(ends)
            if not ends:
                assert len(self.places(id)) == 1, (id, self.places(id))
        for connection in self.pool.connections:
            assert len(connection.calls) <= connection.capacity
        for endpoint in self.pool.endpoints:
            connections = [each for each in self.pool.connections if each.endpoint is endpoint]
            assert endpoint.in_use == sum(each.stage <= READY for each in connections)
            assert endpoint.load == sum(len(each.calls) for each in connections)
            assert {*endpoint.ready} == {each for each in connections if each.stage is READY}

    def finish(self) -> None:
        """Close the pool: then every call has ended once, and nothing is left."""
        self.pool.close()
        self.wait(10)
        self.check()
        assert all(len(ends) == 1 for ends in self.ends.values())
        assert not self.pool.calls
        assert not self.pool.waiting
        for connection in list(self.pool.connections):  # that still have output nobody takes
            assert connection.state == StreamState.FLUSHING
            connection._abort("gone")
        assert not self.pool.connections
        assert not self.watchers


def describe(error: TaskError) -> str:
    """The error's class, and whether the server can have had the call where that is told."""
    sent = error.data.get("sent") if isinstance(error.data, dict) else None
    return type(error).__name__ + {None: "", True: " sent", False: " unsent"}[sent]
