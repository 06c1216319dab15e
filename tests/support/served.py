"""A service of tasks on this process's own hub, and peers of it at the other ends of socket pairs."""

from __future__ import annotations

import _socket
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket

from gtask.binding import TaskFunction
from gtask.net.reactor import current_reactor
from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server.engine import Engine
from gtask.server.service import TaskService
from gtask.server.stats import WorkerStats

from .wait import SLOWNESS


def let_loop_turn(times: int = 8) -> None:
    """Have the loop do all that it can do now."""
    for _ in range(times):
        gevent.sleep(1e-9)  # unlike 0, a timer: the loop looks at its descriptors in between


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of the condition, while the loop turns."""
    with gevent.Timeout(5 * SLOWNESS):
        while not (value := condition()):
            gevent.sleep(0.001)
        return value


class ServedPeer:
    """The peer's end of a connection."""

    def __init__(self, end: Any) -> None:
        self.socket = end
        self._file = end.makefile("rb")

    def send(self, *messages: Any) -> None:
        """Send messages in one packet; bytes as they are, all else as a line of JSON."""
        lines = [m if isinstance(m, bytes) else json.dumps(m).encode() + b"\n" for m in messages]
        self.socket.sendall(b"".join(lines))

    def bare(self, function: str, *args: Any, **options: Any) -> None:
        self.send({"function": function, "args": args, **options})

    def rpc(self, id: Any, function: str, *args: Any) -> None:
        self.send(rpc(id, function, *args))

    def raw_line(self) -> bytes:
        with gevent.Timeout(5 * SLOWNESS):
            return self._file.readline()

    def line(self) -> Any:
        """The next message."""
        line = self.raw_line()
        assert line, "the connection has ended"
        return json.loads(line)

    def lines(self, many: int) -> list[Any]:
        return [self.line() for _ in range(many)]

    def rest(self) -> list[Any]:
        """All messages up to the end."""
        with gevent.Timeout(10 * SLOWNESS):
            return [json.loads(line) for line in self._file]

    def has_ended(self) -> bool:
        """There is nothing but the end; waits for it."""
        return self.raw_line() == b""

    def packet(self) -> list[Any]:
        """The messages that were sent in one go, to a SOCK_SEQPACKET peer."""
        with gevent.Timeout(5 * SLOWNESS):
            return [json.loads(line) for line in self.socket.recv(1 << 20).splitlines()]

    def has_something(self) -> bool:
        """There is something to read, once the loop has done what it can."""
        let_loop_turn()
        return self.has_bytes()

    def has_bytes(self) -> bool:
        """There is something to read now."""
        try:
            return bool(self.socket._sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return False

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._file.close()
        self.socket.close()


class Served:
    """The service, with functions as its tasks.

    Args:
        functions: tasks, by their names; `TaskFunction` objects as they are.
        options: for the engine, where another value than the usual one is wanted.
    """

    def __init__(self, *functions: Any, **options: Any) -> None:
        tasks = [f if isinstance(f, TaskFunction) else TaskFunction(f) for f in functions]
        self.board = Scoreboard(1)
        self.stats = WorkerStats(self.board)
        self.stats.boot(0, os.getpid())
        self.stats.state(WorkerState.READY)
        usual = {
            "concurrency": 100,
            "task_timeout": 0.0,
            "max_frame_bytes": 1 << 20,
            "max_batch": 100,
            "max_send_buffer_bytes": 1 << 20,
        }
        self.engine = Engine(
            {each.name: each for each in tasks}, current_reactor(), self.stats, **(usual | options)
        )
        self.service = TaskService(self.engine)
        self._peers: list[ServedPeer] = []

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *exc: object) -> None:
        self.service.stop()
        self.service.abort()
        for peer in self._peers:
            peer.close()

    def connect(self, kind: int = socket.SOCK_STREAM) -> ServedPeer:
        """A new peer; as SOCK_SEQPACKET it sees what was sent in one go."""
        theirs, ours = socket.socketpair(socket.AF_UNIX, kind)
        self.stats.accepted()
        self.service.accept(_socket.socket(fileno=ours.detach()), ("127.0.0.1", 12345))
        end = gevent.socket.socket(socket.AF_UNIX, kind, fileno=theirs.detach())
        self._peers.append(ServedPeer(end))
        return self._peers[-1]

    def in_hub(self, function: Callable[[], Any]) -> Any:
        """What the function returns, called as a watcher's callback is."""
        results: list[Any] = []
        self.engine.reactor.loop.run_callback(lambda: results.append(function()))
        until(lambda: results)
        return results[0]

    @property
    def connection(self) -> Any:
        """Our end of the only connection."""
        (connection,) = self.engine.connections
        return connection


def rpc(id: Any, function: str, *args: Any) -> dict[str, Any]:
    """A JSON-RPC call."""
    return {"jsonrpc": "2.0", "method": function, "params": list(args), "id": id}


def result(id: Any, value: Any) -> dict[str, Any]:
    """The reply that gives `value` to it."""
    return {"jsonrpc": "2.0", "result": value, "id": id}
