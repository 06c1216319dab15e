"""`TaskClient`: hands tasks to worker processes, from any gevent program and from plain ones."""

from __future__ import annotations

import os
import ssl
import sys
import weakref
from collections.abc import Callable, Iterable
from math import inf
from types import TracebackType
from typing import Any

import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from ..address import Address, parse_address
from ..errors import InternalError, TaskError
from ..net.reactor import current_reactor
from ..protocols.jsontext import dumps
from ..protocols.text import MAX_FRAME_BYTES
from .calls import Call
from .options import Options
from .pool import ConnectionPool

DEFAULT_TIMEOUT = 60.0
MAX_TIMEOUT = 1e9  # seconds; the wire's limit
CONTAINERS = (dict, list, tuple)  # of arguments; the union of these would be made for each call
OTHER_BYTES = 1000  # of a frame that are kept for what is not arguments

_native_thread = monkey.get_original("_thread", "get_ident")  # the patched one tells greenlets


class TaskClient:
    """Calls tasks on one or several servers; one client serves a whole program.

        client = TaskClient(["text://10.0.0.11:12345", "text://10.0.0.12:12345"])
        client.call("send_mail", {"to": "b@x"}, on_result=print, on_error=print)
        total = client.call("add", {"a": 1, "b": 2}).get()

    Any greenlet of any native thread may use it; each thread has connections of its own, made at
    its first call. A thread that runs no gevent loop of its own runs it while it waits.

    Args:
        endpoints: one URL, ``text://host:port`` or ``text+unix:///path``, or several.
        timeout: seconds until a call is given up, here and by the server. None: 60, and the
            server's own limit; 0: none.
        retries: how often a call is repeated when that may help (`TaskError.retryable`) although
            it may have been executed: only for tasks that may run twice.
        connections: connections to each endpoint, opened as calls need them.
        max_pending: unfinished calls of one thread; further ones end with `Overloaded`.
        dialect: "jsonrpc", or "bare" for servers that know only the page's form: one call at a
            time on each connection.
        keep_connections: with "bare": False makes a new connection for each call.
        connect_timeout: seconds for connecting and the server's first word.
        patience: seconds that a call waits for a server while none can be reached.
        max_age: seconds, more or less, after which a connection is replaced, so that new
            addresses of a name and new hosts behind a balancer get their share; 0: never.
        max_frame_bytes: the longest call or answer.
        ssl_context: speak TLS, with this context's certificates and checks.

    Raises:
        ValueError: an argument makes no sense.
    """

    def __init__(
        self,
        endpoints: str | Address | Iterable[str | Address],
        *,
        timeout: float | None = None,
        retries: int = 0,
        connections: int = 4,
        max_pending: int = 10_000,
        dialect: str = "jsonrpc",
        keep_connections: bool = True,
        connect_timeout: float = 5.0,
        patience: float = 3.0,
        max_age: float = 1800.0,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if isinstance(endpoints, str | Address):
            endpoints = [endpoints]
        self.endpoints = [_text_address(endpoint) for endpoint in endpoints]
        if not self.endpoints:
            raise ValueError("at least one endpoint is needed")
        _check_limits(timeout, retries)
        self.timeout = timeout
        self.retries = retries
        self._options = Options(
            connections=connections,
            dialect=dialect,
            keep_connections=keep_connections,
            connect_timeout=connect_timeout,
            patience=patience,
            max_age=max_age,
            max_pending=max_pending,
            max_frame_bytes=max_frame_bytes,
            ssl_context=ssl_context,
        )
        self._is_closed = False
        self._pools: dict[int, ConnectionPool] = {}  # by native thread
        _clients.add(self)

    def __repr__(self) -> str:
        return f"<TaskClient {', '.join(map(str, self.endpoints))}>"

    def call(
        self,
        function: str,
        args: dict[str, Any] | list[Any] | tuple[Any, ...] | None = None,
        *,
        on_result: Callable[[Any], Any] | None = None,
        on_error: Callable[[TaskError], Any] | None = None,
        on_progress: Callable[[Any, Any, Any], Any] | None = None,
        timeout: float | None = None,
        retries: int | None = None,
    ) -> Call:
        """Have `function` called by a worker; never blocks.

        The callbacks run in greenlets of their own, so they may block. Exactly one of `on_result`
        and `on_error` is called, once, never before `call` has returned.

        Args:
            args: keyword arguments (dict) or positional ones.
            on_result: takes the result.
            on_error: takes the `TaskError`.
            on_progress: takes ``(done, total, note)`` as the task reports it.
            timeout, retries: for this call; by default the client's.

        Raises:
            TypeError: the arguments are neither dict nor list.
            ValueError: they are not JSON, or too long for a frame.
        """
        encoded = b"" if args is None else _encode(function, args, self._options.max_frame_bytes)
        if timeout is not None or retries is not None:
            _check_limits(timeout, retries or 0)
        if timeout is None:
            timeout = self.timeout
        limit = DEFAULT_TIMEOUT if timeout is None else timeout or inf
        pool = self._pools.get(_native_thread()) or self._new_pool()
        call = Call(
            pool,
            pool.next_id(),
            function,
            encoded,
            on_result,
            on_error,
            on_progress,
            timeout or None,
            limit,
            self.retries if retries is None else retries,
        )
        pool.submit(call)
        return call

    def close(self) -> None:
        """Close every connection; calls under way end with `TaskCancelled`."""
        self._is_closed = True
        here = current_reactor()
        for pool in list(self._pools.values()):
            if pool.reactor is here:
                pool.close()
            else:
                pool.reactor.loop.run_callback_threadsafe(pool.close)

    def __enter__(self) -> TaskClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _new_pool(self) -> ConnectionPool:
        thread = _native_thread()
        if not hasattr(_threads, "end"):
            _threads.end = _ThreadEnd(thread, owns_hub=get_hub_if_exists() is None)
        _threads.end.clients.add(self)
        pool = self._pools[thread] = ConnectionPool(
            current_reactor(), self.endpoints, self._options
        )
        pool.is_closed = self._is_closed
        return pool

    def _after_fork(self) -> None:
        """In a forked child: the connections are the parent's, so leave them alone."""
        for pool in self._pools.values():
            pool.abandon()
        self._pools.clear()


class _ThreadEnd:
    """Lives in a thread's local data, hence as long as the thread, and cleans up after it.

    gevent leaves the hub of a thread that ends behind, with its descriptors; a program that makes
    a thread for each request would run out of them.
    """

    def __init__(self, thread: int, owns_hub: bool) -> None:
        self.clients: weakref.WeakSet[TaskClient] = weakref.WeakSet()
        self._thread = thread
        self._hub = gevent.get_hub() if owns_hub else None

    def __del__(self) -> None:
        if sys.is_finalizing():
            return
        for client in list(self.clients):
            pool = client._pools.pop(self._thread, None)
            if pool is not None:
                pool.abandon()
        if self._hub is not None:
            self._hub.destroy(destroy_loop=True)


_threads = monkey.get_original("_thread", "_local")()
_clients: weakref.WeakSet[TaskClient] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for client in list(_clients):
        client._after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _text_address(endpoint: str | Address) -> Address:
    address = parse_address(endpoint) if isinstance(endpoint, str) else endpoint
    if address.protocol != "text":
        raise ValueError(f"{endpoint}: TaskClient speaks text:// only")
    return address


def _encode(function: str, args: Any, max_frame_bytes: int) -> bytes:
    if not isinstance(args, CONTAINERS):
        raise TypeError(f"args must be a dict or a list, not {type(args).__name__}")
    try:
        encoded = dumps(args)
    except InternalError as error:
        raise ValueError(f"{function}: arguments are {error.message}") from None
    if len(encoded) > max_frame_bytes - OTHER_BYTES:
        raise ValueError(f"{function}: {len(encoded)} bytes of arguments are too many")
    return encoded


def _check_limits(timeout: float | None, retries: int) -> None:
    if timeout is not None and not 0 <= timeout < MAX_TIMEOUT:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
