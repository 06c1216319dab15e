"""`Handler`: one HTTP connection, until it ends or becomes a websocket.

It runs in a greenlet of its own and may wait there, for at most the times of `limits`. A strict
parser cuts the requests (`protocols/http.py`), and what the application answers is held to its own
word (`response.py`). An error of the client's is told to it, by a status of 400 to 499, and to the
log in one line; only an error of the application's is an ERROR with its traceback.
"""

from __future__ import annotations

import io
from typing import Any, Protocol

from greenlet import GreenletExit

from ...address import format_address
from ...logs.loggers import get_logger
from ...printable import printable
from ...protocols.http import HttpFault, Request, RequestParser
from ..networks import Networks
from ..stats import WorkerStats
from ..worker_connection import ConnectionOwner
from . import handshake
from .body import Body, BrokenBody
from .connection import WebSocketConnection
from .environ import make_environ
from .forwarded import client_of
from .gevent_websocket import WebSocketHandler
from .handshake import Refusal
from .http_socket import HttpSocket, PeerGone
from .limits import HeadWait
from .response import SWITCHING, Response

log = get_logger(__name__)

DISCARD_BYTES = 1024 * 1024  # of a body that the application left; more ends the connection
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
FAILED = Refusal("500 Internal Server Error", "the application failed")


class FrontEnd(ConnectionOwner, Protocol):
    """What handlers and their server need of the service.

    Attributes:
        networks: who may ask for something, and whose word on that is believed.
        origins: the pages that may connect.
        handshake_timeout: seconds for a request's head to arrive; also between two requests.
        is_draining: no request is waited for, and no websocket opened.
        waiting: the handlers' waits for a request's head.
        connections: the websockets, by their ids.
    """

    stats: WorkerStats
    networks: Networks
    origins: tuple[str, ...]
    handshake_timeout: float
    is_draining: bool
    waiting: set[HeadWait]
    connections: dict[int, WebSocketConnection]


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Reads requests, and has each answered by the application or upgraded to a websocket.

    `run_application`, inherited, asks `upgrade_websocket`; if that has agreed it calls
    `run_websocket`, if that has refused or else, with the application's result, `process_result`.

    Attributes:
        is_upgraded: the socket is a `WebSocketConnection`'s now.
    """

    environ: Any
    websocket: Any  # there, once the upgrade is agreed to
    is_upgraded = False

    def __init__(self, sock: HttpSocket, address: Any, server: Any) -> None:
        self.socket: Any = sock
        self.client_address = address
        self.server = server
        self._parser = RequestParser()
        self._response: Any = None
        self._body: Any = None
        self._answered = 0

    @property
    def _service(self) -> FrontEnd:
        service: FrontEnd = self.server.service
        return service

    def handle(self) -> None:
        """Answer requests until there is no other one."""
        try:
            while self.handle_one_request():
                self._answered += 1
        finally:
            self._parser.close()
            self._response = self._body = None  # they know us: no cycle is left to the collector
            if not self.is_upgraded:
                self.socket.close()

    def handle_one_request(self) -> bool:
        """Answer the next request; whether another one may follow."""
        try:
            request = self._read_request()
        except HttpFault as fault:
            self._refuse_broken(fault)
            return False
        if request is None:
            return False
        self._respond(request)
        return not self.is_upgraded and self._is_ready_for_more()

    # -- what is read -------------------------------------------------------------------------

    def _read_request(self) -> Request | None:
        service, parser = self._service, self._parser
        if service.is_draining and self._answered:
            return None  # do not wait for another one
        with HeadWait(service.waiting, service.handshake_timeout):
            while (request := parser.next_request()) is None:
                data = self.socket.receive()
                if not data:
                    return None
                parser.feed(data)
            return request
        return None  # half a request, or an idle kept connection: close

    def _is_ready_for_more(self) -> bool:
        """Get to the end of the request; if that is not near, end the connection."""
        body = self._body
        if not self._response.closes and body.discard(DISCARD_BYTES):
            return True
        if self._request.keeps_alive or not body.is_read:
            self.socket.linger()  # there may be something on its way
        return False

    def _refuse_broken(self, fault: HttpFault) -> None:
        """Answer what is no request, and end the connection."""
        request = Request("GET", "/", "1.1", [], keeps_alive=False)
        self._response = Response(request, self.socket.send, lambda: True)
        self._answer(fault.status, fault.why)
        log.info("%s: %s, %s", format_address(self.client_address), fault.status, fault.why)
        self.socket.linger()

    # -- what is answered ---------------------------------------------------------------------

    def _respond(self, request: Request) -> None:
        """Answer a request; whatever goes wrong, this returns, and `_response` tells the outcome."""
        self._request = request
        self._body = body = Body(self._parser, self.socket, self._continue_for(request))
        self._response = Response(request, self.socket.send, self._is_last)
        self.application = self.server.application
        self.result = None
        try:
            self._make_environ()
            self.run_application()
        except GreenletExit:
            raise
        except PeerGone as error:
            self._response.closes = True
            log.debug("%s: %s", format_address(self.client_address), error)
        except BaseException as error:  # the edge to the application; a Timeout is no Exception
            self._failed(body.fault, error)
        if self._response.fault:
            log.error("%s: %s", self._what, self._response.fault)
        self.environ = None

    def _continue_for(self, request: Request) -> Any:
        expects = any(
            name == "expect" and value.lower() == "100-continue" for name, value in request.headers
        )
        return self._say_continue if expects and request.version == "1.1" else None

    def _say_continue(self) -> None:
        if not self._response.is_begun:
            self.socket.send(CONTINUE)

    def _is_last(self) -> bool:
        """The connection ends behind the answer that is about to be sent.

        A client that was not told to send its body may or may not do so now.
        """
        return self._service.is_draining or self._body.is_awaited or self._body.fault is not None

    def _make_environ(self) -> None:
        service, base = self._service, self.server.get_environ()
        client, scheme = client_of(
            self._request.headers,
            self.client_address,
            base["wsgi.url_scheme"],
            service.networks.is_proxy,
        )
        self._client = client
        self.environ = make_environ(self._request, base, client, scheme)
        self.environ["wsgi.input"] = self._body.as_input()
        self.environ["wsgi.input_terminated"] = True

    def _failed(self, fault: HttpFault | None, error: BaseException) -> None:
        self._response.closes = True
        if fault is not None:
            self._answer(fault.status, fault.why)
            log.info("%s: %s, %s", format_address(self._client), fault.status, fault.why)
        else:
            try:
                log.error("%s: the application failed", self._what, exc_info=error)
            finally:
                self._answer(FAILED.status, FAILED.why)

    def _answer(self, status: str, why: str) -> None:
        """Answer in the application's place, if nothing has been sent yet."""
        response = self._response
        if not response.is_begun:
            response.replace(status, [("Content-Type", "text/plain")])
            try:
                response.write_all([why.encode() + b"\n"])
            except PeerGone:
                response.closes = True

    @property
    def _what(self) -> str:
        """The request, for the log."""
        return printable(f"{self._request.method} {self._request.target}")

    # -- what gevent-websocket and gevent call ------------------------------------------------

    @property
    def status(self) -> str:
        return str(self._response.status)

    @property
    def headers_sent(self) -> bool:
        return bool(self._response.is_begun)

    def start_response(self, status: str, headers: Any, exc_info: Any = None) -> Any:
        fault = self._body.fault
        if fault is not None and status.startswith("5"):
            raise BrokenBody(fault.why)  # the application takes the client's fault for its own
        return self._response.start(status, headers, exc_info)

    def write(self, data: Any) -> None:
        """Send the head of an answer that has no body."""
        self._response.write_all([])

    def process_result(self) -> None:
        result: Any = self.result
        self._response.write_all(result)

    def upgrade_websocket(self) -> list[bytes] | None:
        """Agree to an upgrade or refuse it; leaves any other request to the application.

        Returns:
            the body of a refusal, else None.
        """
        service = self._service
        if not service.networks.is_allowed(self._client):
            return self._refuse(Refusal("403 Forbidden", "this network may not connect"))
        if not handshake.asks_for_websocket(self.environ):
            return None
        refusal = handshake.find_fault(self.environ, service.origins)
        if refusal is None and service.is_draining:
            refusal = handshake.SHUTTING_DOWN
        if refusal is not None:
            return self._refuse(refusal)
        self.upgrade_connection()
        return None

    def _refuse(self, refusal: Refusal) -> list[bytes]:
        status, why, headers = refusal
        self.start_response(
            status, [("Content-Type", "text/plain"), ("Connection", "close"), *headers]
        )
        log.info("%s: %s, %s", format_address(self._client), status, printable(why))
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
        self._response.replace(SWITCHING, headers)
        self.websocket, self._connection = connection.websocket, connection

    def run_websocket(self) -> None:
        """Hand the socket over to the connection; this greenlet is through."""
        sock, tls = self.socket.detach()
        self.environ["wsgi.input"] = io.BytesIO()  # lets go of the parser
        self.is_upgraded = True
        self._service.connections[self._connection.id] = self._connection
        early = self._parser.rest
        self._connection.open(sock, format_address(self._client), tls, early)
