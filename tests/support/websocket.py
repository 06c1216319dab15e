"""A websocket service in a thread with a hub of its own, and a raw client that can misbehave."""

from __future__ import annotations

import base64
import os
import queue
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import gevent

from gtask import Worker
from gtask.callbacks import CONNECTION_CALLBACKS
from gtask.net.reactor import current_reactor
from gtask.protocols.tls import TlsFilter
from gtask.scoreboard import Scoreboard, WorkerState
from gtask.server.fairness import Fairness
from gtask.server.stats import WorkerStats
from gtask.server.web.service import WebSocketService

from .wait import SLOWNESS, wait_until

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class ServiceThread:
    """Runs a `WebSocketService` that records its events; echoes unless told otherwise.

    Args:
        path: of a unix socket, instead of a TCP port.
        tls: speak TLS with this context.
        worker: what the `Worker` has set, by name.
        options: for `WebSocketService`.

    Attributes:
        events: (name, connection, further arguments) of each callback, in order.
        worker: set its callbacks before a client connects.
    """

    def __init__(
        self,
        *,
        path: str = "",
        tls: ssl.SSLContext | None = None,
        worker: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self._listener = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._listener.bind(path or ("127.0.0.1", 0))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.address = self._listener.getsockname()
        self.events: list[tuple[Any, ...]] = []
        self.worker = Worker("websocket://127.0.0.1:0")
        for name in CONNECTION_CALLBACKS:
            setattr(self.worker, name, self._recorder(name))
        for name, value in (worker or {}).items():
            setattr(self.worker, name, value)
        self._tls = tls
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(options, started), daemon=True)
        self._thread.start()
        started.result(10)

    def __enter__(self) -> ServiceThread:
        return self

    def __exit__(self, *exc: object) -> None:
        self.call(self.stop)
        self._calls.put(None)
        self._wake.send()
        self._thread.join(10)
        self._listener.close()
        assert not self._thread.is_alive()

    def _run(self, options: dict[str, Any], started: Future[None]) -> None:
        hub = gevent.get_hub()
        self._wake = hub.loop.async_()
        woken = gevent.event.Event()
        self._wake.start(woken.set)
        try:
            self._serve(options)
            started.set_result(None)
        except BaseException as error:
            started.set_exception(error)
        while True:
            woken.wait()
            woken.clear()
            while not self._calls.empty():
                call = self._calls.get()
                if call is None:
                    self._wake.close()
                    hub.destroy()
                    return
                gevent.spawn(self._answer, *call)

    # What a worker process does with a service.

    def _serve(self, options: dict[str, Any]) -> None:
        self.stats = WorkerStats(Scoreboard(1))
        self.service = WebSocketService(
            self.worker,
            current_reactor(),
            self.stats,
            is_tls=self._tls is not None,
            **options,
        )
        self.server = self.service.make_server(self._listener)
        fairness = Fairness(current_reactor().loop, self.stats, self._is_full)
        self.server.share(self._accept, fairness, self.service.serve_newest)
        self.server.start()
        self.stats.state(WorkerState.READY)

    def _is_full(self) -> bool:
        return self.stats.connections >= self.worker.max_connections

    def _accept(self, client: Any, address: Any) -> None:
        self.stats.accepted()
        tls = TlsFilter(self._tls, server_side=True) if self._tls is not None else None
        self.service.accept(client, address, tls)

    def drain(self, seconds: float) -> None:
        """Let what runs end, for so many seconds; then close everything."""
        self.server.finish()
        self.service.drain()
        deadline = time.monotonic() + seconds
        while not self.service.is_idle and time.monotonic() < deadline:
            self.service.close_idle(1.0)
            gevent.sleep(0.02)
        self.stop()

    def stop(self) -> None:
        """Close everything."""
        self.server.finish()
        self.service.stop()
        self.service.abort()

    @staticmethod
    def _answer(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)

    def call(self, function: Callable[..., Any], *args: Any, seconds: float = 20.0) -> Any:
        """Run `function(*args)` in a greenlet of the service's thread, and wait for it."""
        future: Future[Any] = Future()
        self._calls.put((future, function, args))
        self._wake.send()
        return future.result(seconds * SLOWNESS)

    def _recorder(self, name: str) -> Callable[..., None]:
        def record(connection: Any, *args: Any) -> None:
            self.events.append((name, connection, *args))
            if name == "on_message":
                connection.send(*args)

        return record

    def named(self, name: str) -> list[tuple[Any, ...]]:
        """The further arguments of the events of that name."""
        return [event[2:] for event in self.events if event[0] == name]

    def wait_for(self, name: str, count: int = 1) -> list[tuple[Any, ...]]:
        """The same, once there are so many."""
        wait_until(lambda: len(self.named(name)) >= count, what=f"{count} {name}")
        return self.named(name)

    @property
    def connection(self) -> Any:
        """The only connection there is."""
        wait_until(lambda: self.service.connections, what="a connection")
        (connection,) = self.service.connections.values()
        return connection


class RawClient:
    """A websocket client that is a socket and no more: what it sends is up to the test."""

    def __init__(self, address: Any, timeout: float = 10.0, *, rcvbuf: int = 0) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self.socket.settimeout(timeout * SLOWNESS)
        if rcvbuf:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        self.socket.connect(address)
        self.buffer = b""

    def __enter__(self) -> RawClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def reset(self) -> None:
        """Close with an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def send_until_stuck(self, data: bytes, times: int) -> bool:
        """Send `data` again and again; whether the peer stopped taking it for 0.3 s."""
        self.socket.settimeout(0.3)
        try:
            for _ in range(times):
                self.socket.sendall(data)
        except TimeoutError:
            return True
        return False

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes; EOFError if the stream ends before."""
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def read_head(self) -> tuple[int, dict[str, str]]:
        """Status and headers (names in lower case) of an HTTP answer."""
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines[1:])
        return int(lines[0].split()[1]), {name.lower(): value for name, value in headers.items()}

    def read_answer(self) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an HTTP answer."""
        status, headers = self.read_head()
        return status, headers, self.read(int(headers["content-length"]))

    def upgrade(self, behind: bytes = b"", **headers: str) -> dict[str, str]:
        """Become a websocket, sending `behind` in the same packet; returns the answer's headers."""
        self.send(request(**headers) + behind)
        status, answer = self.read_head()
        assert status == 101, self.buffer
        return answer

    def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame, which must be whole and not masked."""
        first, length = self.read(2)
        assert first & 0xF0 == 0x80
        assert length < 128
        if length == 126:
            (length,) = struct.unpack("!H", self.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self.read(8))
        return first & 0x0F, self.read(length)

    def close_code(self) -> int:
        """The code of the Close frame that must come next, and then the end of the stream."""
        opcode, payload = self.frame()
        assert opcode == CLOSE, (opcode, payload)
        payload[2:].decode()
        assert not self.rest()
        return int.from_bytes(payload[:2], "big")

    def rest(self) -> bytes:
        """What comes until the end of the stream."""
        data, self.buffer = self.buffer, b""
        while more := self.socket.recv(65536):
            data += more
        return data

    def echo(self, text: str) -> bool:
        """The service answers `text`."""
        self.send(frame(TEXT, text.encode()))
        return self.frame() == (TEXT, text.encode())


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """A WSGI application that answers with the request's body, or its path; fails at /fail."""
    body = environ["wsgi.input"].read() or environ["PATH_INFO"].encode()
    if environ["PATH_INFO"] == "/fail":
        raise RuntimeError("broken application")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def request(*, method: str = "GET", version: str = "1.1", **changes: str | None) -> bytes:
    """A handshake; `changes` replace headers, underscores standing for dashes; None removes."""
    headers: dict[str, str | None] = {
        "host": "example.test",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec_websocket_version": "13",
        "sec_websocket_key": base64.b64encode(os.urandom(16)).decode(),
        **changes,
    }
    lines = [f"{name.replace('_', '-')}: {v}" for name, v in headers.items() if v is not None]
    return "\r\n".join([f"{method} /chat?x=1 HTTP/{version}", *lines, "", ""]).encode()


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True
) -> bytes:
    """A client's frame, made the slow and simple way."""
    head = bytes([fin << 7 | rsv << 4 | opcode])
    length = len(payload)
    if length < 126:
        head += bytes([masked << 7 | length])
    elif length < 65536:
        head += struct.pack("!BH", masked << 7 | 126, length)
    else:
        head += struct.pack("!BQ", masked << 7 | 127, length)
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close_frame(code: int | None = None, reason: bytes = b"") -> bytes:
    return frame(CLOSE, b"" if code is None else code.to_bytes(2, "big") + reason)
