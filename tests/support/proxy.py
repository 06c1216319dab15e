"""A cutting proxy: stands between a client and a server, and does to bytes what networks do.

Each connection gets a fate, drawn from a seeded generator: pass, delay, split at every byte,
throttle, reset, half-close, or black hole. The same seed draws the same fates in the same order.
"""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterable

FATES = ("pass", "delay", "split", "throttle", "reset", "half-close", "black-hole")


class CuttingProxy:
    """Listens on a free port of its own and forwards to `target`.

    Args:
        target: ``(host, port)`` of the server.
        fates: what may happen to a connection; repeat one to make it likelier.
        seed: for `random.Random`; print it when a test fails.
        after: (least, most) bytes of replies until a connection that is to end does.

    Attributes:
        url: for a client.
        met: how many connections met each fate.
    """

    def __init__(
        self,
        target: tuple[str, int],
        fates: Iterable[str] = FATES,
        seed: int = 0,
        after: tuple[int, int] = (0, 20_000),
    ) -> None:
        self._target = target
        self.fates = tuple(fates)
        self._random = random.Random(seed)
        self._after = after
        self.met: Counter[str] = Counter()
        self._open: set[socket.socket] = set()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = "text://{}:{}".format(*self._listener.getsockname())
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Refuse new connections and cut the open ones."""
        self._is_closed = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut_all()

    def cut_all(self) -> None:
        """Reset every open connection."""
        for one in list(self._open):
            self._reset(one)

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            fate = self._random.choice(self.fates)
            left = self._random.randint(*self._after)
            self.met[fate] += 1
            try:
                server = socket.create_connection(self._target, 5)
            except OSError:
                self._reset(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.add(one)
            threading.Thread(target=self._up, args=(client, server, fate), daemon=True).start()
            threading.Thread(
                target=self._down, args=(server, client, fate, left), daemon=True
            ).start()

    def _up(self, client: socket.socket, server: socket.socket, fate: str) -> None:
        """Requests: forwarded, but for a black hole, which swallows them."""
        try:
            while data := client.recv(65536):
                if fate != "black-hole":
                    self._forward(server, data, fate)
            server.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def _down(self, server: socket.socket, client: socket.socket, fate: str, left: int) -> None:
        """Replies: forwarded until the connection's fate befalls it."""
        ends = fate in ("reset", "half-close")
        try:
            while data := server.recv(65536):
                if ends and len(data) > left:
                    client.sendall(data[:left])
                    break
                left -= len(data)
                self._forward(client, data, fate)
            if fate == "reset" and ends:
                self._reset(client)
            else:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        finally:
            self._open.discard(server)
            server.close()

    def _forward(self, to: socket.socket, data: bytes, fate: str) -> None:
        if fate == "split":
            for byte in data[:500]:
                to.sendall(bytes([byte]))
            to.sendall(data[500:])
            return
        if fate == "delay":
            time.sleep(0.02)
        if fate == "throttle":
            for start in range(0, len(data), 2000):
                to.sendall(data[start : start + 2000])
                time.sleep(0.005)
            return
        to.sendall(data)

    def _reset(self, one: socket.socket) -> None:
        self._open.discard(one)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.shutdown(socket.SHUT_RD)  # wakes the thread that reads
            one.close()
        except OSError:
            pass
