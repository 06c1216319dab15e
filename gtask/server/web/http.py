"""`Handler`: one HTTP connection, until it ends or becomes a websocket.

It runs in a greenlet of its own and may wait there, for at most the times of `limits`. pywsgi
parses the requests and writes the application's answers; what is added to that stands here in
four parts: what is limited, what is read, what is answered, what is logged.
"""

from __future__ import annotations

import _socket
import io
from typing import Any, Protocol

import gevent

from ...address import format_address
from ...logs.loggers import get_logger
from ...printable import printable
from ...protocols.tls import TlsFilter
from ..stats import WorkerStats
from ..worker_connection import ConnectionOwner
from . import handshake
from .connection import WebSocketConnection
from .gevent_websocket import WebSocketHandler
from .handshake import Refusal
from .limits import HeadWait
from .tls_socket import TlsSocket

log = get_logger(__name__)


class FrontEnd(ConnectionOwner, Protocol):
    """What handlers and their server need of the service.

    Attributes:
        origins: the pages that may connect.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        is_draining: no request is waited for, and no websocket opened.
        waiting: the handlers' waits for a request's head.
        connections: the websockets, by their ids.
    """

    stats: WorkerStats
    origins: tuple[str, ...]
    handshake_timeout: float
    is_draining: bool
    waiting: set[HeadWait]
    connections: dict[int, WebSocketConnection]


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Reads HTTP requests, within a time limit; upgrades to a websocket what asks for it.

    Attributes:
        is_upgraded: the socket is a `WebSocketConnection`'s now.
    """

    socket: Any
    websocket: Any
    is_upgraded = False

    @property
    def _service(self) -> FrontEnd:
        service: FrontEnd = self.server.service
        return service

    # -- what is limited ----------------------------------------------------------------------

    def handle_one_request(self) -> Any:
        service = self._service
        if service.is_draining and self.requestline is not None:
            return None  # it has had an answer: do not wait for another request
        with HeadWait(service.waiting, service.handshake_timeout) as self._wait:
            return super().handle_one_request()
        return None  # half a request, or an idle kept connection: close

    # -- what is read -------------------------------------------------------------------------

    def read_request(self, requestline: str) -> Any:
        result = super().read_request(requestline)
        self._wait.end()
        return result

    def _release_socket(self) -> tuple[Any, TlsFilter | None, bytes]:
        """Let go of the socket.

        Returns:
            the bare socket, its TLS, and what the peer has sent behind its request.
        """
        sock: Any = self.socket
        sock.settimeout(0.0)  # so that peek gives what has come, and does not wait
        tls, early = None, self.rfile.peek()
        if isinstance(sock, TlsSocket):
            tls, early = sock.tls, early + sock.plain
        bare = _socket.socket(sock.family, sock.type, 0, fileno=sock.detach())
        self.socket = None
        return bare, tls, early

    # -- what is answered ---------------------------------------------------------------------

    def upgrade_websocket(self) -> list[bytes] | None:
        """Answer an upgrade; leaves any other request to the application.

        Returns:
            the body of a refusal, else None.
        """
        if not handshake.asks_for_websocket(self.environ):
            return None
        refusal = handshake.find_fault(self.environ, self._service.origins)
        if refusal is None and self._service.is_draining:
            refusal = handshake.SHUTTING_DOWN
        if refusal is not None:
            return self._refuse(refusal)
        self.upgrade_connection()
        return None

    def _refuse(self, refusal: Refusal) -> list[bytes]:
        status, why, headers = refusal
        self.close_connection = True
        self.start_response(
            status, [("Content-Type", "text/plain"), ("Connection", "close"), *headers]
        )
        log.info("%s: %s, %s", format_address(self.client_address), status, printable(why))
        return [why.encode() + b"\n"]

    def upgrade_connection(self) -> None:
        """Agree to the upgrade, its request being in order."""
        service, environ = self._service, self.environ
        connection = WebSocketConnection(service, environ)
        connection.subprotocol = handshake.choose_subprotocol(
            service.worker.choose_subprotocol, environ
        )
        environ["wsgi.websocket"] = connection.websocket
        environ["wsgi.websocket_version"] = handshake.VERSION
        headers = handshake.upgrade_headers(environ, connection.subprotocol)
        self.start_response("101 Switching Protocols", headers)
        self.websocket, self._connection = connection.websocket, connection

    def run_websocket(self) -> None:
        """Hand the socket over to the connection; this greenlet is through."""
        sock, tls, early = self._release_socket()
        self.environ["wsgi.input"] = io.BytesIO()  # lets go of the buffer around the socket
        self.is_upgraded = True
        self._service.connections[self._connection.id] = self._connection
        self._connection.open(sock, format_address(self.client_address), tls, early)

    # -- what is logged -----------------------------------------------------------------------

    def log_request(self) -> None:
        log.debug("%s", self.format_request())

    def log_error(self, msg: str, *args: Any) -> None:
        log.info(msg, *args)

    def _handle_client_error(self, ex: Exception) -> Any:
        # Whatever a client does is no reason for a traceback: a ValueError gets none.
        return super()._handle_client_error(ValueError(str(ex)))

    def _log_error(self, t: Any, v: Any, tb: Any) -> None:
        if not issubclass(t, gevent.GreenletExit):
            log.error(
                "%s: the application failed", printable(self.requestline), exc_info=(t, v, tb)
            )
