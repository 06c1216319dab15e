"""The websocket front end: gevent-websocket's server, handler and WebSocket, made safe.

This is the only file that touches gevent-websocket. Its handler (gevent's pywsgi) reads the HTTP
request in a greenlet; after the handshake the socket moves to a `WebSocketConnection`, which lives
on the hub like every other connection, so that an idle browser costs no greenlet.
"""

from __future__ import annotations

import _socket
import errno
import io
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic
from types import SimpleNamespace
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group
from gevent.socket import socket as GeventSocket
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.server import WebSocketServer
from geventwebsocket.websocket import WebSocket as BaseWebSocket

from ..net.connection import (
    CALLBACKS,
    MAX_SEND_BUFFER_BYTES,
    TcpConnection,
    format_address,
)
from ..net.reactor import current_reactor
from ..net.stream import READ_BYTES, State
from ..protocols.tls import TlsFilter
from ..protocols.websocket import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    INTERNAL_ERROR,
    MAX_MESSAGE_BYTES,
    NORMAL,
    PING,
    PONG,
    TEXT,
    MessageDecoder,
    accept_key,
    encode_close,
    encode_frame,
)

log = logging.getLogger(__name__)

HTTP_SECONDS = 60.0  # a plain HTTP peer may stand still this long within a request or answer
QUIET_SECONDS = 1.0  # a drained connection is closed when its peer was silent this long
SWEEP_SECONDS = 0.05  # while draining
FLUSH_SECONDS = 1.0  # for the last Close frames
EXHAUSTED_SECONDS = 0.25
EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
VERSION = "13"

Headers = list[tuple[str, str]]


class WebSocket(BaseWebSocket):  # type: ignore[misc]
    """gevent-websocket's `WebSocket` over buffers: nothing in it waits.

    `feed` takes in what came from the socket, `receive` gives the messages that have arrived, and
    `send` writes to the connection's buffer. So no time limit can cut a frame in two, and any
    greenlet may send.
    """

    closed: bool

    def __init__(
        self, environ: dict[str, Any], connection: WebSocketConnection, max_message_bytes: int
    ) -> None:
        super().__init__(environ, SimpleNamespace(read=None, write=connection._write), None)
        self.decoder = MessageDecoder(max_message_bytes)
        self._connection = connection
        self._events: deque[tuple[int, Any]] = deque()

    def __del__(self) -> None:
        """Nothing: the base class would send from the garbage collector."""

    def feed(self, data: bytes) -> None:
        """Take in what the peer has sent; see `decoder.error` when all is received."""
        self._events.extend(self.decoder.feed(data))

    def receive(self) -> str | bytes | None:
        """The next message that has arrived whole, or None; answers the Pings in between."""
        while self._events:
            opcode, payload = self._events.popleft()
            if opcode in (TEXT, BINARY):
                return payload  # type: ignore[no-any-return]
            if opcode == PING:
                self.handle_ping(None, payload)
            elif opcode == CLOSE:
                self.handle_close(None, payload)
        return None

    def handle_ping(self, header: Any, payload: bytes) -> None:
        if not self._connection.is_full:  # else it reads no Pongs either
            self.send_frame(payload, PONG)

    def handle_close(self, header: Any, payload: tuple[int, str]) -> None:
        self._connection._told(*payload)

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send one message: text from str, binary from bytes, unless `binary` says otherwise.

        Raises:
            TypeError: neither str nor bytes.
            ValueError: text that cannot be UTF-8, i.e. holds half a surrogate pair.
        """
        if binary is None:
            binary = not isinstance(message, str)
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes | bytearray | memoryview):
            raise TypeError(f"send takes str or bytes, not {type(message).__name__}")
        self.send_frame(bytes(message), BINARY if binary else TEXT)

    def send_frame(self, message: bytes, opcode: int) -> None:
        if not self.closed:
            self.raw_write(encode_frame(opcode, message))

    def close(self, code: int = NORMAL, message: str = "") -> None:
        """Send the Close frame; nothing can be sent after it."""
        if not self.closed:
            frame = encode_close(code, message)
            self.closed = True
            self.raw_write(frame)


class WebSocketConnection(TcpConnection):
    """One websocket, with the verbs and callbacks of a `TcpConnection`.

    `on_message` gets str for a text message and bytes for a binary one. `on_connect` comes after
    the handshake.

    Attributes:
        request: the handshake's WSGI environment: path, query, cookies, Origin.
        subprotocol: the one agreed on, or None.
        peer_close: code and reason of the peer's Close frame; None while it has sent none.
        last_active: when the peer was last heard, `time.monotonic`.
    """

    __slots__ = (
        "_pinged",
        "_queued",
        "_service",
        "_stuck_since",
        "_written",
        "last_active",
        "peer_close",
        "request",
        "subprotocol",
        "websocket",
    )

    def __init__(self, service: WebSocketService, request: dict[str, Any]) -> None:
        super().__init__(
            max_send_buffer_bytes=service.max_send_buffer_bytes, reactor=service.reactor
        )
        self._service = service
        self.websocket = WebSocket(request, self, service.max_message_bytes)
        self._decoder: Any = self.websocket.decoder
        self.request = request
        self.subprotocol: str | None = None
        self.peer_close: tuple[int, str] | None = None
        self.last_active = monotonic()
        self._queued = 0  # bytes read since the callbacks last were through
        self._pinged = 0.0  # when, if no sign of life came since
        self._written = -1  # bytes_written when last looked at ...
        self._stuck_since = 0.0  # ... and since when it is that
        for name in CALLBACKS:
            setattr(self, name, getattr(service.callbacks, name, None))

    # -- the user's verbs ---------------------------------------------------------------------

    def close(self, data: str | bytes | None = None) -> None:
        """Send `data`, if any, then close with code 1000 when everything is sent."""
        if data is not None and self.state == State.OPEN:
            self._put(data)
        self.close_code(NORMAL)

    def close_code(self, code: int, reason: str = "") -> None:
        """Close with a code of one's own when everything is sent.

        Args:
            code: 1000-1003, 1007-1014 or 3000-4999; the last thousand is for applications.
            reason: for the peer; what is beyond 123 bytes is cut.

        Raises:
            ValueError: a code that must not be sent.
        """
        if self.state == State.OPEN:
            self.websocket.close(code, reason)
            self._close(f"closed here, {code} {reason}", linger=True)

    # -- events -------------------------------------------------------------------------------

    @property
    def is_busy(self) -> bool:
        """A callback runs, or waits to."""
        return self._busy or bool(self._events)

    @property
    def is_full(self) -> bool:
        """`send` would refuse."""
        return self._buffered >= self.max_send_buffer_bytes

    def _put(self, data: str | bytes) -> None:
        self.websocket.send(data)

    def _received(self, data: bytes) -> None:
        self.last_active = monotonic()
        self._pinged = 0.0
        websocket, events = self.websocket, self._events
        websocket.feed(data)
        while (message := websocket.receive()) is not None:
            events.append(("on_message", (message,)))
        if self._decoder.failed:
            self._pause()
            if self._decoder.error is not None:
                events.append(("_broken", ()))
        if events:
            self._wake()
            # Pings should be answered while a callback takes its time, so read on for a while.
            self._queued += len(data)
            if self._busy and not self._stalled and self._queued >= READ_BYTES:
                self._stalled = True
                self._pause()

    def _write(self, data: bytes | bytearray) -> None:
        if self.state == State.OPEN:
            super()._write(data)

    def _told(self, code: int, reason: str) -> None:
        self.peer_close = (code, reason)
        self._events.append(("_answer_close", ()))  # the messages before it come first

    def _answer_close(self) -> None:
        assert self.peer_close is not None
        self.close_code(self.peer_close[0])

    def _broken(self) -> None:
        error = self._decoder.error
        log.info("%r: %s", self, error.message)
        self.close_code(error.code, error.message)

    def _crashed(self, event: str) -> None:
        if self.state == State.OPEN:
            self._events.clear()
            self.close_code(INTERNAL_ERROR, "internal error")

    def _deliver(self) -> None:
        try:
            super()._deliver()
        finally:
            self._queued = 0

    def _closed(self, reason: str) -> None:
        log.debug("%r: %s", self, reason)
        self._service.forget(self)
        super()._closed(reason)

    # -- looked after by the service, in the hub ----------------------------------------------

    def open(self, socket: Any, remote_address: str, tls: TlsFilter | None, early: bytes) -> None:
        """Take over the socket; `early` is what the peer sent right behind the handshake."""
        self._accept(socket, remote_address, tls)
        if early:
            self.bytes_read += len(early)
            self._received(early)

    def check(self, now: float, ping_interval: float, send_timeout: float) -> None:
        """Ping a peer that is silent; drop one that stays silent, or takes nothing from us."""
        if not self._buffered or self.bytes_written != self._written:
            self._written = self.bytes_written
            self._stuck_since = now
        elif now - self._stuck_since >= send_timeout:
            self._abort(f"took nothing for {send_timeout:g} s")
            return
        if not ping_interval or self.state != State.OPEN:
            return
        if self._stalled or self._user_paused:
            self._pinged = 0.0  # we do not listen: silence says nothing
        elif self._pinged:
            if self._buffered and self._stuck_since == now:
                self._pinged = now  # our Ping may be still on its way
            elif now - self._pinged >= ping_interval:
                self._abort(f"no answer to a ping in {ping_interval:g} s")
        elif now - self.last_active >= ping_interval:
            self._pinged = now
            self.websocket.send_frame(b"", PING)


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Reads HTTP requests, within a time limit; upgrades to a websocket what asks for it."""

    socket: Any
    websocket: Any
    is_upgraded = False  # the socket is a WebSocketConnection's now

    def handle_one_request(self) -> Any:
        service = self.server.service
        if service.is_draining and self.requestline is not None:
            return None  # do not wait for another one
        self._limit = gevent.Timeout(service.handshake_timeout)
        self._limit.start()
        self._greenlet = gevent.getcurrent()
        service.waiting[self] = monotonic()
        try:
            return super().handle_one_request()
        except gevent.Timeout as timeout:
            if timeout is not self._limit:
                raise
            return None  # half a request, or an idle kept connection: close
        finally:
            service.waiting.pop(self, None)
            self._limit.close()

    def read_request(self, requestline: str) -> Any:
        result = super().read_request(requestline)
        del self.server.service.waiting[self]
        self._limit.cancel()
        return result

    def end(self) -> None:
        """Wait no longer for a request."""
        self._greenlet.kill(self._limit, block=False)

    # -- the handshake, RFC 6455 section 4.2 --------------------------------------------------

    def upgrade_websocket(self) -> list[bytes] | None:
        """Answer an upgrade; leaves any other request to the application.

        Returns:
            the body of a refusal, else None.
        """
        if "websocket" not in _tokens(self.environ, "HTTP_UPGRADE"):
            return None
        refusal = self._refusal()
        if refusal is None:
            self.upgrade_connection()
            return None
        status, why, headers = refusal
        log.info("%s: %s, %s", format_address(self.client_address), status, why)
        self.close_connection = True
        self.start_response(
            status, [("Content-Type", "text/plain"), ("Connection", "close"), *headers]
        )
        return [why.encode() + b"\n"]

    def _refusal(self) -> tuple[str, str, Headers] | None:
        environ, service = self.environ, self.server.service
        if self.command != "GET":
            return "405 Method Not Allowed", "a websocket begins with GET", [("Allow", "GET")]
        if self.request_version != "HTTP/1.1":
            return "400 Bad Request", "a websocket needs HTTP/1.1", []
        if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
            return "400 Bad Request", "the header Connection: Upgrade is missing", []
        if not environ.get("HTTP_HOST"):
            return "400 Bad Request", "the header Host is missing", []
        if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
            return "400 Bad Request", "an upgrade has no body", []
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
            return (
                "426 Upgrade Required",
                f"only Sec-WebSocket-Version {VERSION} is spoken here",
                [("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")],
            )
        if accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")) is None:
            return "400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64", []
        if not is_origin_allowed(environ, service.origins):
            return "403 Forbidden", f"origin {environ['HTTP_ORIGIN']} may not connect", []
        if service.is_draining:
            return "503 Service Unavailable", "shutting down", []
        return None

    def upgrade_connection(self) -> None:
        """Agree to the upgrade, its request being in order."""
        connection = WebSocketConnection(self.server.service, self.environ)
        headers = [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", accept_key(self.environ["HTTP_SEC_WEBSOCKET_KEY"]) or ""),
        ]
        connection.subprotocol = self.server.service.choose(self.environ)
        if connection.subprotocol is not None:
            headers.append(("Sec-WebSocket-Protocol", connection.subprotocol))
        self.environ["wsgi.websocket"] = connection.websocket
        self.environ["wsgi.websocket_version"] = VERSION
        self.start_response("101 Switching Protocols", headers)
        self.websocket, self._connection = connection.websocket, connection

    def run_websocket(self) -> None:
        """Hand the socket over to the connection; this greenlet is through."""
        sock: Any = self.socket
        self.socket = None
        sock.settimeout(0.0)  # so that peek gives what has come, and does not wait
        early = self.rfile.peek()
        self.environ["wsgi.input"] = io.BytesIO()
        family, kind = sock.family, sock.type
        tls = None
        if isinstance(sock, _TlsSocket):
            tls = sock.tls
            early += sock.plain
        plain = _socket.socket(family, kind, 0, fileno=sock.detach())
        self.is_upgraded = True
        self.server.clients[self._connection.id] = self._connection
        self._connection.open(plain, format_address(self.client_address), tls, early)

    # -- what pywsgi would print --------------------------------------------------------------

    def log_request(self) -> None:
        log.debug("%s", self.format_request())

    def log_error(self, msg: str, *args: Any) -> None:
        log.info(msg, *args)

    def _handle_client_error(self, ex: Exception) -> Any:
        # Whatever a client sends is no reason for a traceback: a ValueError gets none.
        return super()._handle_client_error(ex if isinstance(ex, OSError) else ValueError(str(ex)))

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if not issubclass(t, gevent.GreenletExit):
            log.error("%s: the application failed", self.requestline, exc_info=(t, v, tb))


class Server(WebSocketServer):  # type: ignore[misc]
    """gevent-websocket's server on a duplicate of the master's listening socket."""

    handler_class = Handler
    max_accept = 1  # siblings accept from the same socket
    logger = log

    def __init__(self, service: WebSocketService, listener: Any, application: Any) -> None:
        self.service = service
        address = listener.getsockname()
        host, port = address[:2] if isinstance(address, tuple) else ("", "")
        super().__init__(
            GeventSocket(listener.family, listener.type, 0, os.dup(listener.fileno())),
            application,
            spawn=service.handlers.spawn,
            log=None,
            error_log=log,
            environ={
                "SERVER_NAME": host,  # pywsgi would ask the DNS
                "SERVER_PORT": str(port),
                "wsgi.multiprocess": True,
                "wsgi.url_scheme": "http" if service.ssl_context is None else "https",
            },
        )
        self.clients = service.connections  # by their ids: not all addresses are unique

    def full(self) -> bool:
        return self.service.is_full

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except OSError as error:
            if error.errno in EXHAUSTED:
                log.error("cannot accept connections: %s", error.strerror)
                self.stop_accepting()
                self._timer = self.loop.timer(EXHAUSTED_SECONDS)
                self._timer.start(self._start_accepting_if_started)
            return None  # else the peer has gone again, accept(2)

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends or becomes a websocket's."""
        service = self.service
        service.entered()
        sock.settimeout(HTTP_SECONDS)
        if service.ssl_context is not None:
            sock = _TlsSocket(sock, TlsFilter(service.ssl_context, server_side=True))
        handler = self.handler_class(sock, address, self)
        try:
            handler.handle()
        except OSError as error:
            log.debug("%s: %s", format_address(address), error)
        finally:
            if not handler.is_upgraded:
                service.left()


class _TlsSocket(io.RawIOBase):
    """The blocking face of a TLS connection, for as long as HTTP is spoken on it."""

    def __init__(self, sock: Any, tls: TlsFilter) -> None:
        self._inner = sock
        self.tls = tls
        self.plain = bytearray()  # decrypted, not read yet
        self.family, self.type = sock.family, sock.type
        self.settimeout, self.detach = sock.settimeout, sock.detach

    def makefile(self, mode: str, buffering: int = -1) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while not self.plain:
            try:
                data = self._inner.recv(READ_BYTES)
            except BlockingIOError:
                return None
            if not data:
                return 0
            try:
                self.plain += self.tls.receive(data)
            finally:  # also the alert that says why not
                if output := self.tls.take_output():
                    self._inner.sendall(output)
        count = min(len(buffer), len(self.plain))
        buffer[:count] = self.plain[:count]
        del self.plain[:count]
        return count

    def sendall(self, data: bytes | bytearray) -> None:
        self.tls.send(data)
        self._inner.sendall(self.tls.take_output())

    def close(self) -> None:
        self._inner.close()
        super().close()


class WebSocketService:
    """Websockets, and perhaps a WSGI application, on one listening socket.

    Args:
        listener: a listening socket; it stays the caller's.
        callbacks: its `on_connect`, `on_message` … are what each connection starts with. A
            `connections` dict in it is used; `choose_subprotocol(offered, request)`, if it has
            that, picks one of the names the client offers, or None.
        application: WSGI, for requests that ask for no websocket.
        origins: the Origin headers to accept; "*" accepts all, none accepts the own host. Clients
            that send no Origin are no browsers, and may connect.
        max_message_bytes: longer messages end their connection with code 1009.
        max_send_buffer_bytes: per connection, what may wait to be sent.
        ping_interval: seconds of silence before a Ping, and then before the end; 0: never.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        send_timeout: seconds a peer may take nothing of what waits for it.
        max_connections: beyond these nothing is accepted; HTTP connections count, too.
        ssl_context: speak TLS.
        on_load: called with the number of open connections when it changes.

    Attributes:
        connections: the open websockets, by id.
        load: the number of open connections of both kinds.
    """

    def __init__(
        self,
        listener: Any,
        callbacks: Any,
        *,
        application: Any = None,
        origins: tuple[str, ...] = (),
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_send_buffer_bytes: int = MAX_SEND_BUFFER_BYTES,
        ping_interval: float = 20.0,
        handshake_timeout: float = 10.0,
        send_timeout: float = 30.0,
        max_connections: int = 10000,
        ssl_context: ssl.SSLContext | None = None,
        on_load: Callable[[int], None] | None = None,
    ) -> None:
        self.callbacks = callbacks
        self.origins = tuple(origins)
        self.max_message_bytes = max_message_bytes
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.ping_interval = ping_interval
        self.handshake_timeout = handshake_timeout
        self.send_timeout = send_timeout
        self.max_connections = max_connections
        self.ssl_context = ssl_context
        self.reactor = current_reactor()
        self.connections: dict[int, WebSocketConnection] = getattr(callbacks, "connections", {})
        self.handlers = Group()  # greenlets that speak HTTP
        self.waiting: dict[Handler, float] = {}  # those without a request, and since when
        self.is_draining = False
        self.load = 0
        self._on_load = on_load
        self._emptied = Event()
        self._server = Server(self, listener, application or websockets_only)
        self._sweeper: Any = None

    def start(self) -> None:
        """Begin to accept."""
        self._server.start()
        period = min(self.ping_interval or self.send_timeout, self.send_timeout) / 4
        self._sweeper = self.reactor.loop.timer(period, period)
        self._sweeper.start(self._sweep, update=True)

    def stop_accepting(self) -> None:
        """Accept no more; what is open goes on."""
        if not self._server.closed:
            self._server.close()

    def drain(self, timeout: float) -> None:
        """Accept no more, let callbacks end, close everything; waits up to `timeout` seconds.

        A connection is closed (1001) when no callback of it runs and its peer was silent for a
        second; at the end of the time limit in any case.
        """
        self.stop_accepting()
        self.is_draining = True
        deadline = monotonic() + timeout
        while self.load and monotonic() < deadline:
            quiet_since = monotonic() - QUIET_SECONDS
            for connection in list(self.connections.values()):
                if not connection.is_busy and connection.last_active <= quiet_since:
                    connection.close_code(GOING_AWAY, "shutting down")
            for handler, since in list(self.waiting.items()):
                if since <= quiet_since:
                    handler.end()
            self._emptied.wait(min(SWEEP_SECONDS, max(0.0, deadline - monotonic())))
        self.close()

    def close(self) -> None:
        """Close everything now: websockets with 1001, HTTP connections just so."""
        self.stop_accepting()
        self.is_draining = True
        for connection in list(self.connections.values()):
            connection.close_code(GOING_AWAY, "shutting down")
        self.handlers.kill(timeout=FLUSH_SECONDS)
        if self.connections:
            self._emptied.clear()
            self._emptied.wait(FLUSH_SECONDS)
        for connection in list(self.connections.values()):
            connection.destroy()
        if self._sweeper is not None:
            self._sweeper.stop()
            self._sweeper.close()
            self._sweeper = None

    def report(self) -> list[dict[str, Any]]:
        """Each websocket, for the operator."""
        now = monotonic()
        return [
            {
                "peer": connection.remote_address,
                "protocol": "websocket",
                "outstanding": int(connection.is_busy),
                "bytes_read": connection.bytes_read,
                "bytes_written": connection.bytes_written,
                "send_buffer": connection._buffered,
                "idle_seconds": round(now - connection.last_active, 3),
            }
            for connection in self.connections.values()
        ]

    def oldest(self) -> tuple[int, float]:
        """Callbacks are not watched one by one."""
        return 0, 0.0

    # -- for the server and its connections ---------------------------------------------------

    @property
    def is_full(self) -> bool:
        return self.load >= self.max_connections

    def choose(self, request: dict[str, Any]) -> str | None:
        """The subprotocol for a handshake, as the user chooses."""
        chooser = getattr(self.callbacks, "choose_subprotocol", None)
        header = request.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
        offered = [name for part in header.split(",") if (name := part.strip())]
        if chooser is None or not offered:
            return None
        chosen: str | None = chooser(offered, request)
        if chosen is not None and chosen not in offered:
            raise ValueError(f"choose_subprotocol: {chosen!r} was not offered by the client")
        return chosen

    def entered(self) -> None:
        """A connection has been accepted."""
        self._change(1)

    def left(self) -> None:
        """It has been closed without becoming a websocket."""
        self._change(-1)

    def forget(self, connection: WebSocketConnection) -> None:
        """A websocket has been closed."""
        if self.connections.pop(connection.id, None) is not None:
            self._change(-1)

    def _change(self, by: int) -> None:
        was_full = self.is_full
        self.load += by
        if self._on_load is not None:
            self._on_load(self.load)
        if was_full and self._server.started:
            self._server.start_accepting()
        if not self.load:
            self._emptied.set()

    def _sweep(self) -> None:
        now = monotonic()
        for connection in list(self.connections.values()):
            connection.check(now, self.ping_interval, self.send_timeout)


def is_origin_allowed(environ: dict[str, Any], origins: tuple[str, ...]) -> bool:
    """Whether the page of that Origin may connect, so that no foreign page acts for its visitor."""
    origin = environ.get("HTTP_ORIGIN", "").lower()
    if not origin or "*" in origins:
        return True
    if origins:
        return any(origin == allowed.lower().rstrip("/") for allowed in origins)
    host: str = environ["HTTP_HOST"]
    return bool(origin.partition("://")[2] == host.lower())


def websockets_only(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application of a service without one."""
    start_response(
        "426 Upgrade Required",
        [("Content-Type", "text/plain"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
    )
    return [b"This is a websocket service: connect to it with ws:// or wss://.\n"]


def _tokens(environ: dict[str, Any], header: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(header, "").split(",")]
