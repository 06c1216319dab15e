"""Servers that misbehave on purpose, on this process's own hub; a well-behaved one is a real worker."""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Callable
from typing import Any

import gevent
from gevent.server import StreamServer

from gtask.client import TaskClient
from gtask.client.connection import Stage


class Line:
    """One message that a peer has read, and the ways to answer it."""

    def __init__(self, socket: Any, message: dict[str, Any]) -> None:
        self.socket = socket
        self.message = message
        self.method = message.get("method", message.get("function"))

    @property
    def id(self) -> Any:
        return self.message["id"]

    def send(self, message: Any) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.socket.sendall(data + b"\n")

    def result(self, value: Any) -> None:
        self.send({"jsonrpc": "2.0", "result": value, "id": self.id})

    def error(self, code: int, message: str = "", data: Any = None) -> None:
        error = {"code": code, "message": message, "data": data}
        self.send({"jsonrpc": "2.0", "error": error, "id": self.id})


class ScriptedPeer:
    """Gives each message to `script(line)`; answers pings by itself if `pongs`.

    Attributes:
        lines: every message but the pings.
        sockets: of all connections accepted.
    """

    def __init__(self, script: Callable[[Line], Any], *, pongs: bool = True) -> None:
        self.script = script
        self.pongs = pongs
        self.lines: list[Line] = []
        self.sockets: list[Any] = []
        self._server = StreamServer(("127.0.0.1", 0), self._serve)
        self._server.start()
        self.url = f"text://127.0.0.1:{self._server.server_port}"

    def _serve(self, socket: Any, _address: Any) -> None:
        self.sockets.append(socket)
        try:
            for data in socket.makefile("rb"):
                line = Line(socket, json.loads(data))
                if line.method == "gtask.ping":
                    if self.pongs:
                        line.result("pong")
                else:
                    self.lines.append(line)
                    self.script(line)
        except OSError:
            pass  # the client was faster

    def stop_listening(self) -> None:
        self._server.close()

    def close(self) -> None:
        self._server.stop(timeout=0)
        for accepted in self.sockets:
            accepted.close()


def echo(line: Line) -> None:
    params = line.message.get("params")
    line.result(params["args"] if line.method == "gtask.call" else params)


def reset(peer_socket: Any) -> None:
    """End a connection by an RST."""
    peer_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer_socket.detach())


def hang_up(line: Line) -> None:
    line.socket.shutdown(socket.SHUT_RDWR)


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """The first true value, while the hub runs."""
    with gevent.Timeout(seconds):
        while not (value := condition()):
            gevent.sleep(0.002)
        return value


def pool_of(client: TaskClient) -> Any:
    """The client's pool in this thread."""
    (pool,) = client._pools.values()
    return pool


def ready(client: TaskClient) -> list[Any]:
    """The client's connections that take calls."""
    return [each for each in pool_of(client).connections if each.stage is Stage.READY]


class Outcome:
    """Counts a call's ends."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.errors: list[Any] = []

    @property
    def ends(self) -> int:
        return len(self.results) + len(self.errors)

    def callbacks(self) -> dict[str, Any]:
        return {"on_result": self.results.append, "on_error": self.errors.append}
