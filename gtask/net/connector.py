"""`Connector`: one attempt to connect, told by a callback; every calling connection is made here.

A name's addresses are tried one after the other, so `localhost` finds a server on either family;
none gets more than its share of the time, as the first may be dead.
Nothing blocks: names are looked up in a greenlet of their own.
"""

from __future__ import annotations

import _socket
import os
import random
from collections.abc import Callable
from errno import EALREADY, EINPROGRESS
from time import monotonic
from typing import Any

import gevent.socket

from ..address import Address, look_up
from .reactor import Reactor

WRITE = 2
STREAM = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK

# A host that vanished without a word is noticed after 30 + 3 * 10 seconds of silence. All of these
# cost 2 µs, where a connection costs 50.
OPTIONS = (
    (_socket.IPPROTO_TCP, _socket.TCP_NODELAY, 1),
    (_socket.SOL_SOCKET, _socket.SO_KEEPALIVE, 1),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPIDLE, 30),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPINTVL, 10),
    (_socket.IPPROTO_TCP, _socket.TCP_KEEPCNT, 3),
)


class Connector:
    """Calls `connected(socket)` or `failed(why)`, once, unless it is cancelled before.

    Neither is called before `start` returns.

    Args:
        timeout: seconds for everything; of several addresses each gets its share of what is left.
    """

    __slots__ = (
        "_address",
        "_candidates",
        "_connected",
        "_deadline",
        "_failed",
        "_is_over",
        "_reactor",
        "_socket",
        "_timer",
        "_watcher",
    )

    def __init__(
        self,
        reactor: Reactor,
        address: Address,
        timeout: float,
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._deadline = monotonic() + timeout  # seconds
        self._connected = connected
        self._failed = failed
        self._candidates: list[tuple[int, Any]] = []  # family and address, in the order to try
        self._socket: Any = None
        self._watcher: Any = None
        self._timer: Any = None
        self._is_over = False

    def start(self) -> None:
        """Begin."""
        candidate = _literal(self._address)
        if candidate is None:
            self._start_timer(1)
            self._reactor.start(self._resolve)
        else:
            self._candidates.append(candidate)
            self._next("")

    def cancel(self) -> None:
        """Stop; neither callback is called any more."""
        self._is_over = True
        self._stop_watching()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _resolve(self) -> None:
        address = self._address
        try:
            found = look_up(address, gevent.socket.getaddrinfo)
        except (OSError, ValueError) as error:  # ValueError: no name can be like that, IDNA says
            found, why = [], getattr(error, "strerror", None) or f"{address.host!r}: {error}"
        else:
            why = "no address"
        if not self._is_over:
            # Within one family any order is as good: spread over all of a name's hosts.
            families = list(dict.fromkeys(entry[0] for entry in found))
            random.shuffle(found)
            found.sort(key=lambda entry: families.index(entry[0]))
            self._candidates = [(entry[0], entry[4]) for entry in found]
            self._next(why)

    def _next(self, why: str) -> None:
        """Try the next address; `why` is what was wrong with the one before."""
        self._stop_watching()
        while self._candidates:
            family, sockaddr = self._candidates.pop(0)
            try:
                code = self._begin(family, sockaddr)
            except (OSError, ValueError) as error:  # no descriptor left, or a bad unix path
                why = getattr(error, "strerror", None) or str(error)
                continue
            if code == 0:
                self._reactor.loop.run_callback(self._succeed)
                return
            if code == EALREADY:
                self._watcher = self._reactor.loop.io(self._socket.fileno(), WRITE)
                self._watcher.start(self._ended)
                self._start_timer(1 + len(self._candidates))
                return
            why = os.strerror(code)
        self._reactor.loop.run_callback(self._fail, why)

    def _begin(self, family: int, sockaddr: Any) -> int:
        """Start to connect; returns connect(2)'s error number, EALREADY if that takes its time."""
        if self._socket is not None:
            self._socket.close()
        socket = self._socket = _socket.socket(family, STREAM)
        if family != _socket.AF_UNIX:
            for level, option, value in OPTIONS:
                socket.setsockopt(level, option, value)
        code: int = socket.connect_ex(sockaddr)
        if code == EINPROGRESS:
            # Within a machine the handshake is over when connect(2) returns, and asking again
            # tells: 0 or its error, else EALREADY. That saves a watcher and a timer.
            code = socket.connect_ex(sockaddr)
        return code

    def _ended(self) -> None:
        code = self._socket.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
        if code:
            self._next(os.strerror(code))
        else:
            self._succeed()

    def _fail(self, why: str) -> None:
        if not self._is_over:
            self.cancel()
            self._failed(why)

    def _succeed(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._stop_watching()
        socket, self._socket = self._socket, None
        self._connected(socket)

    def _start_timer(self, shares: int) -> None:
        left = max(0.0, self._deadline - monotonic()) / shares
        self._timer = self._reactor.loop.timer(left)
        self._timer.start(self._timed_out, update=True)

    def _timed_out(self) -> None:
        if self._socket is not None and self._is_connected():
            self._succeed()  # meanwhile nothing has run the loop
        elif self._socket is not None:
            self._next("timed out")
        else:
            self._fail("name look-up timed out")

    def _is_connected(self) -> bool:
        try:
            self._socket.getpeername()
        except OSError:
            return False
        return True

    def _stop_watching(self) -> None:
        for watcher in (self._watcher, self._timer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._watcher = self._timer = None


def _literal(address: Address) -> tuple[int, Any] | None:
    """Family and address where no name has to be looked up."""
    if address.is_unix:
        return _socket.AF_UNIX, address.path
    for family in (_socket.AF_INET, _socket.AF_INET6):
        try:
            _socket.inet_pton(family, address.host)
        except (OSError, ValueError):
            continue
        return family, (address.host, address.port)
    if "%" in address.host:  # a scope, as in fe80::1%eth0
        return _scoped(address)
    return None


def _scoped(address: Address) -> tuple[int, Any] | None:
    numeric = _socket.AI_NUMERICHOST  # nothing is looked up, so nothing blocks
    try:
        found = _socket.getaddrinfo(address.host, address.port, 0, _socket.SOCK_STREAM, 0, numeric)
    except (OSError, ValueError):
        return None
    return found[0][0], found[0][4]
