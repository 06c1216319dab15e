"""The control socket: one JSON line asks, one JSON line answers, then the connection closes.

Only its owner may connect (mode 0600). Neither a client that does not read or write nor one that
writes nonsense holds us up: there are so many at most, and each has so much time.
"""

from __future__ import annotations

import errno
import json
import math
import os
import select
import socket as flags
import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

from ..native import accept, socket
from .ownfiles import OwnFile
from .unixsockets import bind_unix, remove_stale

MAX_REQUEST_BYTES = 65536
MAX_CLIENTS = 64
CLIENT_SECONDS = 10.0  # to ask, and later for each part of the answer that is taken
EXHAUSTED_SECONDS = 1.0  # until we accept again when there was no descriptor left

Watch = Callable[[int, int], None]


class Client:
    """One connection: `read` gets its request, `reply` answers it.

    Args:
        watch: called with our descriptor and the poll(2) events to wait for; 0: forget it.

    Attributes:
        deadline: when it has taken too long; of the monotonic clock, in seconds. Infinite while it
            waits for us.
    """

    def __init__(self, connection: socket, watch: Watch) -> None:
        connection.setblocking(False)
        watch(connection.fileno(), select.POLLIN)
        self._socket = connection
        self._watch = watch
        self._unread = b""
        self._unsent = b""
        self._has_asked = False
        self.deadline = monotonic() + CLIENT_SECONDS
        self.is_closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> dict[str, Any] | None:
        """The request, when it is complete; nonsense is answered, and a client that went is closed."""
        try:
            data = self._socket.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        if not data:
            self.close()
            return None
        if self._has_asked:
            return None  # it has asked already
        self._unread += data
        line, newline, _ = self._unread.partition(b"\n")
        if newline:
            return self._understand(line)
        if len(self._unread) > MAX_REQUEST_BYTES:
            self._refuse(f"a request has at most {MAX_REQUEST_BYTES} bytes")
        return None

    def _understand(self, line: bytes) -> dict[str, Any] | None:
        self._has_asked, self._unread = True, b""
        self.deadline = math.inf
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            request = None
        if isinstance(request, dict) and not any(map(_is_deep, request.values())):
            return request
        self._refuse("a request is one line, a JSON object of plain values")
        return None

    def _refuse(self, message: str) -> None:
        self._has_asked, self._unread = True, b""
        self.reply(ok=False, message=message)

    def reply(self, **answer: Any) -> None:
        """Send the answer; the connection closes when the client has taken it."""
        if not self.is_closed:
            self._unsent = json.dumps(answer).encode() + b"\n"
            self.write()

    def write(self) -> None:
        """Send what the socket takes."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self.deadline = monotonic() + CLIENT_SECONDS
        except BlockingIOError:
            self.deadline = min(self.deadline, monotonic() + CLIENT_SECONDS)
        except OSError:
            self._unsent = b""
        if self._unsent:
            self._watch(self.fileno(), select.POLLOUT)
        else:
            self.close()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._watch(self.fileno(), 0)
            self._socket.close()


def _is_deep(value: Any) -> bool:
    return isinstance(value, dict | list)


class Control:
    """The listening side.

    Args:
        path: of the socket.
        watch: as a client's.

    Raises:
        OSError: somebody listens there, or it cannot be made.
    """

    def __init__(self, path: str, watch: Watch) -> None:
        remove_stale(path)
        self._listener = bind_unix(path, 0o600)  # as given: a relative path may be short enough
        self.path = os.path.abspath(path)
        self._file = OwnFile(self.path)
        self._listener.setblocking(False)
        self._listener.listen(2 * MAX_CLIENTS)
        self._watch = watch
        self._clients: dict[int, Client] = {}
        self._accepts_at = 0.0
        watch(self._listener.fileno(), select.POLLIN)

    def serve(self, fd: int, events: int) -> tuple[Client, dict[str, Any]] | None:
        """Do what poll(2) says about one of our descriptors; returns a request that is complete."""
        if fd == self._listener.fileno():
            self._accept()
            return None
        client = self._clients[fd]
        if events & select.POLLOUT:
            client.write()
            return None
        request = client.read()
        return (client, request) if request is not None else None

    def owns(self, fd: int) -> bool:
        return fd == self._listener.fileno() or fd in self._clients

    def tick(self, now: float) -> None:
        """Close clients that take too long; accept again if we paused. `now` is monotonic, in seconds."""
        for client in self._clients.values():
            if now >= client.deadline:
                client.close()
        self._forget_closed()
        if self._accepts_at and now >= self._accepts_at:
            self._accepts_at = 0.0
            self._watch(self._listener.fileno(), select.POLLIN)

    def drop(self, fd: int) -> None:
        """Close the client at a descriptor: something went wrong with it."""
        if fd in self._clients:
            self._clients[fd].close()

    def _accept(self) -> None:
        try:
            while True:
                self._take(accept(self._listener))
        except BlockingIOError:
            pass  # there is no more
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                self._watch(self._listener.fileno(), 0)
                self._accepts_at = monotonic() + EXHAUSTED_SECONDS

    def _take(self, connection: socket) -> None:
        self._forget_closed()
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
        else:
            self._clients[connection.fileno()] = Client(connection, self._watch)

    def _forget_closed(self) -> None:
        for fd in [fd for fd, client in self._clients.items() if client.is_closed]:
            del self._clients[fd]

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._listener.close()

    def remove(self) -> None:
        """Remove the socket's file, if it is still ours."""
        self._file.remove()


def connect(path: str, timeout: float | None = None) -> socket:
    """A connection to the master that listens at `path`.

    Raises:
        OSError: nobody listens there (FileNotFoundError, ConnectionRefusedError), or too late.
    """
    connection = socket(flags.AF_UNIX, flags.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def peer_pid(connection: socket) -> int:
    """The process that listens at the other end, as we see it; 0 if we do not (unix(7))."""
    credentials = connection.getsockopt(flags.SOL_SOCKET, flags.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder, signed=True)


def ask(connection: socket, command: str, **details: Any) -> dict[str, Any]:
    """Send a command and wait for the answer.

    Raises:
        OSError: too late.
        EOFError: the master closed the connection without an answer.
    """
    connection.sendall(json.dumps({"command": command, **details}).encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = connection.recv(65536)
        if not data:
            raise EOFError("no answer")
        answer += data
    result = json.loads(answer)
    assert isinstance(result, dict)
    return result
