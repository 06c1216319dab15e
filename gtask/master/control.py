"""The control socket: one JSON line asks, one JSON line answers, then the connection closes.

Only its owner may connect (mode 0600). A client that does not read or write never holds us up.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket as flags
from collections.abc import Callable
from typing import Any

from ..native import accept, socket
from .sockets import bind_unix, remove_stale

MAX_REQUEST_BYTES = 65536
MAX_CLIENTS = 64

Watch = Callable[[int, int], None]


class Client:
    """One connection: `read` gets its request, `reply` answers it.

    Args:
        watch: called with our descriptor and the poll(2) events to wait for; 0: forget it.
    """

    def __init__(self, connection: socket, watch: Watch) -> None:
        connection.setblocking(False)
        watch(connection.fileno(), select.POLLIN)
        self._socket = connection
        self._watch = watch
        self._unread = b""
        self._unsent = b""
        self.is_closed = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> dict[str, Any] | None:
        """The request, when it is complete; closes the connection when there will be none."""
        try:
            data = self._socket.recv(MAX_REQUEST_BYTES)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        self._unread += data
        line, newline, _ = self._unread.partition(b"\n")
        if newline:
            self._unread = b""
            with contextlib.suppress(ValueError):
                request = json.loads(line)
                if isinstance(request, dict):
                    return request
        if newline or not data or len(self._unread) > MAX_REQUEST_BYTES:
            self.close()
        return None

    def reply(self, **answer: Any) -> None:
        """Send the answer; the connection closes when the client has taken it."""
        if not self.is_closed:
            self._unsent = json.dumps(answer).encode() + b"\n"
            self.write()

    def write(self) -> None:
        """Send what the socket takes."""
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
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
        self._listener.setblocking(False)
        self._listener.listen(2 * MAX_CLIENTS)
        self._watch = watch
        self._clients: dict[int, Client] = {}
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

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # until there is no more
            while True:
                self._take(accept(self._listener))

    def _take(self, connection: socket) -> None:
        for fd in [fd for fd, client in self._clients.items() if client.is_closed]:
            del self._clients[fd]
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
        else:
            self._clients[connection.fileno()] = Client(connection, self._watch)

    def close(self) -> None:
        for client in self._clients.values():
            client.close()
        self._listener.close()

    def remove(self) -> None:
        """Remove the socket's file."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)


def ask(path: str, command: str, timeout: float | None = None, **details: Any) -> dict[str, Any]:
    """Send a command to the master that listens at `path` and wait for its answer.

    Raises:
        OSError: nobody listens there (FileNotFoundError, ConnectionRefusedError), or too late.
        EOFError: it closed the connection without an answer.
    """
    with socket(flags.AF_UNIX, flags.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
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
