"""The websocket front end: gevent-websocket's server, handler and WebSocket, made safe.

This is the only file that touches gevent-websocket. Its handler (gevent's pywsgi) reads the HTTP
request in a greenlet; after the handshake the socket moves to a `WebSocketConnection`, which lives
on the hub like every other connection, so that an idle browser costs no greenlet.
"""

from __future__ import annotations

import _socket
import io
import logging
from collections import deque
from time import monotonic
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import gevent
from gevent.pool import Group
from gevent.socket import socket as GeventSocket
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.server import WebSocketServer
from geventwebsocket.websocket import WebSocket as BaseWebSocket

from ..address import format_address
from ..net.connection import Data
from ..net.reactor import Reactor
from ..net.stream import READ_BYTES, State
from ..protocols.tls import TlsFilter
from ..protocols.websocket import (
    BINARY,
    CLOSE,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL,
    PING,
    PONG,
    TEXT,
    MessageDecoder,
    accept_key,
    encode_close,
    encode_frame,
)
from .callbacks import IDLE_SECONDS, CallbackService, WorkerConnection
from .gauge import Gauge

if TYPE_CHECKING:
    from ..worker import Worker

log = logging.getLogger(__name__)

HTTP_SECONDS = 60.0  # a plain HTTP peer may stand still this long within a request or answer
FLUSH_SECONDS = 1.0  # for the last Close frames
FLUSH_STEP_SECONDS = 0.01
VERSION = "13"

Headers = list[tuple[str, str]]


class WebSocket(BaseWebSocket):  # type: ignore[misc]
    """gevent-websocket's `WebSocket` over buffers: nothing in it waits.

    `feed` takes in what came from the socket, `receive` gives the messages that have arrived, and
    `send` writes to the connection's buffer. So no time limit can cut a frame in two, and any
    greenlet may send.
    """

    closed: bool
    raw_write: Any

    def __init__(
        self, environ: dict[str, Any], connection: WebSocketConnection, max_message_bytes: int
    ) -> None:
        super().__init__(environ, SimpleNamespace(read=None, write=connection._write), None)
        self.decoder = MessageDecoder(max_message_bytes)
        self._connection: Any = connection
        self._events: deque[tuple[int, Any]] = deque()

    def __del__(self) -> None:
        """Nothing: the base class would send from the garbage collector."""

    def feed(self, data: bytes) -> None:
        """Take in what the peer has sent; see `decoder.error` when all is received."""
        self._events.extend(self.decoder.feed(data))

    def receive(self) -> str | bytes | None:
        """The next message that has arrived whole, or None; answers the Pings in between."""
        while self._events and not self.closed:
            opcode, payload = self._events.popleft()
            if opcode in (TEXT, BINARY):
                return payload  # type: ignore[no-any-return]
            if opcode == PING:
                self.handle_ping(None, payload)
            elif opcode == CLOSE:
                self.handle_close(None, payload)
        return None

    def handle_ping(self, header: Any, payload: bytes) -> None:
        if not self._connection._is_full:  # else it reads no Pongs either
            self.send_frame(payload, PONG)

    def handle_close(self, header: Any, payload: tuple[int, str]) -> None:
        self._connection._told(*payload)

    def send(self, message: Data, binary: bool | None = None) -> None:
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

    def detach(self) -> None:
        """The connection has ended; let go of it, so that no cycle keeps its memory."""
        self.closed = True
        self.raw_write = self.stream = self.environ = self._connection = None


class WebSocketConnection(WorkerConnection):
    """One websocket, with the verbs and callbacks of a `TcpConnection`.

    `on_message` gets str for a text message and bytes for a binary one. `on_connect` comes after
    the handshake.

    Attributes:
        request: the handshake's WSGI environment: path, query, cookies, Origin.
        subprotocol: the one agreed on, or None.
        peer_close: code and reason of the peer's Close frame; None while it has sent none.
    """

    __slots__ = (
        "_heard",
        "_pinged",
        "_queued",
        "_stuck_since",
        "_written",
        "peer_close",
        "request",
        "subprotocol",
        "websocket",
    )

    def __init__(self, service: WebSocketService, request: dict[str, Any]) -> None:
        super().__init__(service)
        self.websocket = WebSocket(request, self, service.worker.max_frame_bytes)
        self._decoder: Any = self.websocket.decoder
        self.request = request
        self.subprotocol: str | None = None
        self.peer_close: tuple[int, str] | None = None
        self._queued = 0  # bytes read since the callbacks last were through
        self._heard = self.last_active  # a Pong is a sign of life, but no activity
        self._pinged = 0.0  # when, if no sign of life came since
        self._written = -1  # bytes_written when last looked at ...
        self._stuck_since = 0.0  # ... and since when it is that

    # -- the user's verbs ---------------------------------------------------------------------

    def close(self, data: Data | None = None) -> None:
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

    def _put(self, data: Data) -> None:
        self.websocket.send(data)

    def _received(self, data: bytes) -> None:
        self._heard = monotonic()
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
            self.last_active = self._heard
            self._queued += len(data)
            self._wake()
            # Pings should be answered while a callback takes its time, so read on for a while.
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
        self.websocket.detach()
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
        if self._stalled or self._user_paused or self._decoder.failed:
            self._pinged = 0.0  # we do not listen: silence says nothing
        elif self._pinged:
            if self._buffered and self._stuck_since == now:
                self._pinged = now  # our Ping may be still on its way
            elif now - self._pinged >= ping_interval:
                self._abort(f"no answer to a ping in {ping_interval:g} s")
        elif now - self._heard >= ping_interval:
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
        self._greenlet: Any = gevent.getcurrent()
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
        sock.settimeout(0.0)  # so that peek gives what has come, and does not wait
        early = self.rfile.peek()
        self.environ["wsgi.input"] = io.BytesIO()
        family, kind = sock.family, sock.type
        tls = None
        if isinstance(sock, _TlsSocket):
            tls = sock.tls
            early += sock.plain
        plain = _socket.socket(family, kind, 0, fileno=sock.detach())
        self.socket = None
        self.is_upgraded = True
        self.server.clients[self._connection.id] = self._connection
        self._connection.open(plain, format_address(self.client_address), tls, early)

    # -- what pywsgi would print --------------------------------------------------------------

    def log_request(self) -> None:
        log.debug("%s", self.format_request())

    def log_error(self, msg: str, *args: Any) -> None:
        log.info(msg, *args)

    def _handle_client_error(self, ex: Exception) -> Any:
        # Whatever a client does is no reason for a traceback: a ValueError gets none.
        return super()._handle_client_error(ValueError(str(ex)))

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if not issubclass(t, gevent.GreenletExit):
            log.error("%s: the application failed", self.requestline, exc_info=(t, v, tb))


class Server(WebSocketServer):  # type: ignore[misc]
    """gevent-websocket's server, given its connections by an `Acceptor` instead of listening."""

    handler_class = Handler
    logger = log

    def __init__(self, service: WebSocketService, address: Any, is_tls: bool) -> None:
        self.service = service
        host, port = address[:2] if isinstance(address, tuple) else ("", 0)
        super().__init__(
            ("", 0),
            service.worker.application or websockets_only,
            log=None,
            error_log=log,
            environ={
                "SERVER_NAME": host,  # pywsgi would ask the DNS
                "SERVER_PORT": str(port),
                "wsgi.multiprocess": True,
                "wsgi.url_scheme": "https" if is_tls else "http",
            },
        )
        self.clients = service.connections  # by their ids: not all addresses are unique

    def handle(self, sock: Any, address: Any) -> None:
        """Serve one connection until it ends or becomes a websocket's."""
        handler = self.handler_class(sock, address, self)
        try:
            handler.handle()
        except OSError as error:
            log.debug("%s: %s", format_address(address), error)
        except Exception:  # the edge to pywsgi, whose parser may have met something new
            log.exception("%s: request failed", format_address(address))
        finally:
            if not handler.is_upgraded:
                self.service.gauge.closed(0, 0)


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


class WebSocketService(CallbackService):
    """Gives the websockets of one worker process to its callbacks, plain HTTP to its application.

    Args:
        address: of the listening socket.
        is_tls: connections come with a `TlsFilter`.
        ping_interval: seconds of silence before a Ping, and then before the end; 0: never.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        send_timeout: seconds a peer may take nothing of what waits for it.

    Attributes:
        waiting: the handlers without a request, and since when.
    """

    connections: dict[int, WebSocketConnection]  # type: ignore[assignment]

    def __init__(
        self,
        worker: Worker,
        reactor: Reactor,
        gauge: Gauge,
        *,
        address: Any,
        is_tls: bool = False,
        ping_interval: float = 20.0,
        handshake_timeout: float = 10.0,
        send_timeout: float = 30.0,
    ) -> None:
        super().__init__(worker, reactor, gauge)
        self.ping_interval = ping_interval
        self.handshake_timeout = handshake_timeout
        self.send_timeout = send_timeout
        self.origins = worker.settings().origins
        self.waiting: dict[Handler, float] = {}
        self._handlers = Group()
        self._server = Server(self, address, is_tls)
        period = min(ping_interval or send_timeout, send_timeout) / 4
        self._checker = reactor.loop.timer(period, period)
        self._checker.start(self._check, update=True)

    def accept(self, socket: Any, address: Any, tls: TlsFilter | None = None) -> None:
        """Serve the peer on `socket`."""
        sock = GeventSocket(socket.family, socket.type, 0, socket.detach())
        sock.settimeout(HTTP_SECONDS)
        self._handlers.spawn(
            self._server.handle, _TlsSocket(sock, tls) if tls is not None else sock, address
        )

    def choose(self, request: dict[str, Any]) -> str | None:
        """The subprotocol for a handshake, as the user chooses."""
        chooser = self.worker.choose_subprotocol
        header = request.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
        offered = [name for part in header.split(",") if (name := part.strip())]
        if chooser is None or not offered:
            return None
        chosen: str | None = chooser(offered, request)
        if chosen is not None and chosen not in offered:
            raise ValueError(f"choose_subprotocol: {chosen!r} was not offered by the client")
        return chosen

    def sweep(self, idle_seconds: float = IDLE_SECONDS) -> None:
        """As for text; when draining, also end handlers that wait for a request."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections.values()):
            if connection.last_active < since and not connection.is_busy:
                connection.close_code(GOING_AWAY, self._why)
        if self.is_draining:
            for handler, waiting_since in list(self.waiting.items()):
                if waiting_since < since:
                    handler.end()

    def abort(self) -> None:
        """Close everything now: websockets with 1001, HTTP connections just so."""
        self.is_draining = True
        for connection in list(self.connections.values()):
            connection.close_code(GOING_AWAY, self._why)
        self._handlers.kill(timeout=FLUSH_SECONDS)
        deadline = monotonic() + FLUSH_SECONDS
        while self.connections and monotonic() < deadline:
            gevent.sleep(FLUSH_STEP_SECONDS)
        super().abort()
        self._checker.stop()
        self._checker.close()

    def report(self) -> list[dict[str, Any]]:
        """Each websocket, for the operator."""
        return [{**line, "protocol": "websocket"} for line in super().report()]

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._handlers

    @property
    def _why(self) -> str:
        return "shutting down" if self.is_draining else "idle"

    def _check(self) -> None:
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
