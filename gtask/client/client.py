"""`TaskClient`: hands tasks to worker processes, from any gevent program and from plain ones."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable
from dataclasses import fields
from math import inf
from time import monotonic
from types import TracebackType
from typing import Any

from ..address import Address, parse_address
from ..current import Adopter, running_task
from ..errors import InternalError, ProtocolError, TaskError
from ..protocols.jsontext import dumps, loads
from ..protocols.text import MAX_FRAME_BYTES
from . import life
from .calls import Call
from .options import Options
from .pool import ConnectionPool

DEFAULT_TIMEOUT = 60.0
MAX_TIMEOUT = 1e9  # seconds; the wire's limit
MIN_TIMEOUT = 0.001
CONTAINERS = (dict, list, tuple)  # of arguments; the union of these would be made for each call
BACKSLASH = 92  # a single octet is found in a tenth of the time
OTHER_BYTES = 1000  # of a frame that are kept for what is not arguments

_find_task = running_task.get
_native_thread = life.native_thread


class TaskClient:
    """Calls tasks on one or several servers; one client serves a whole program.

        client = TaskClient(["text://10.0.0.11:12345", "text://10.0.0.12:12345"])
        client.call("send_mail", {"to": "b@x"}, on_result=print, on_error=print)
        total = client.call("add", {"a": 1, "b": 2}).get()

    Any greenlet of any native thread may use it; each thread has connections of its own, made at
    its first call. A thread that runs no gevent loop of its own runs it while it waits. A copy, or
    one that was pickled, is another client with the same arguments.

    Within a task of a gtask worker, calls end with that task's time limit or cancellation.

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
        self._pools: dict[int, ConnectionPool] = {}  # by native thread
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
        life.clients.add(self)

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
            timeout, retries: for this call; by default the client's. Within a task, no timeout
                is what is left of the task's.

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
        find = _find_task()
        if find is not None:
            task: Adopter | None = find()
            timeout, limit = _within(task, timeout, limit)
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
        if find is not None and task is not None:
            task.adopt(call)
        return call

    def try_again(self) -> None:
        """Try those addresses again at once that are left alone as they could not be reached."""
        pool = self._pools.get(_native_thread())
        if pool is not None:
            for endpoint in pool.endpoints:
                endpoint.try_again()

    def close(self) -> None:
        """Close every connection; calls under way end with `TaskCancelled`."""
        self._is_closed = True
        life.close(self)

    def __del__(self) -> None:
        life.part(self._pools.values())

    def __copy__(self) -> TaskClient:
        return self._make(*self._arguments())

    def __deepcopy__(self, _memo: Any) -> TaskClient:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._options.ssl_context is not None:
            raise TypeError("a TaskClient with an ssl_context cannot be pickled: make one there")
        return self._make, self._arguments()

    @classmethod
    def _make(cls, endpoints: list[Address], options: dict[str, Any]) -> TaskClient:
        return cls(endpoints, **options)

    def _arguments(self) -> tuple[list[Address], dict[str, Any]]:
        options = {each.name: getattr(self._options, each.name) for each in fields(Options)}
        return self.endpoints, {**options, "timeout": self.timeout, "retries": self.retries}

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
        pool = ConnectionPool(life.reactor(), self.endpoints, self._options)
        life.enter(self, pool)
        pool.is_closed = self._is_closed
        return pool


def _within(
    task: Adopter | None, timeout: float | None, limit: float
) -> tuple[float | None, float]:
    """What a call's `timeout`, for the server, and limit, for us, are in a task with its own."""
    if task is None or task.deadline is None:
        return timeout, limit
    left = max(MIN_TIMEOUT, task.deadline - monotonic())
    limit = left if timeout is None else min(limit, left)
    return limit, limit


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
    if BACKSLASH in encoded and b"\\ud" in encoded:  # perhaps half of a surrogate pair
        _check_surrogates(function, encoded)
    if len(encoded) > max_frame_bytes - OTHER_BYTES:
        raise ValueError(f"{function}: {len(encoded)} bytes of arguments are too many")
    return encoded


def _check_surrogates(function: str, encoded: bytes) -> None:
    """Half of a pair is no text, and no server could read it."""
    try:
        loads(encoded)
    except ProtocolError as error:
        raise ValueError(f"{function}: arguments are not JSON text: {error.message}") from None


def _check_limits(timeout: float | None, retries: int) -> None:
    if timeout is not None and not 0 <= timeout < MAX_TIMEOUT:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}")
    if retries < 0:
        raise ValueError(f"retries must be 0 or more, not {retries!r}")
