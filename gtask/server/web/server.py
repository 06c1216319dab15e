"""`WebServer`: what the handlers of one worker process share, and the edge to them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from ...address import format_address
from ...logs.loggers import get_logger
from ...patches.leftovers import end_if_forked
from ..shared_listener import SharedListener
from .gevent_websocket import WebSocketServer
from .http import FrontEnd, Handler

log = get_logger(__name__)


class WebServer(SharedListener, WebSocketServer):  # type: ignore[misc]
    """gevent-websocket's server, which is gevent's `StreamServer`, on the shared listening socket."""

    handler_class = Handler
    logger = log

    def __init__(self, service: FrontEnd, listener: Any, is_tls: bool) -> None:
        self.service = service
        address = listener.getsockname()
        host, port = address[:2] if isinstance(address, tuple) else ("", "")
        super().__init__(
            listener,
            ends_if_forked(service.worker.application or websockets_only),
            log=None,
            error_log=_Errors(),
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
        except Exception:  # the edge: it ends this connection, and is told
            log.exception("%s: request failed", format_address(address))
        finally:
            if not handler.is_upgraded:
                self.service.stats.closed(0, 0)


def ends_if_forked(application: Any) -> Any:
    """A WSGI application that has no answer to give in a child that it has forked."""

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        try:
            body = application(environ, start_response)
        except BaseException as error:
            end_if_forked(error)
            raise
        end_if_forked(None)
        return body

    return call


class _Errors:
    """``wsgi.errors``: what an application writes there, each text as a record."""

    def write(self, text: str) -> None:
        if text := text.rstrip("\n"):
            log.log(logging.ERROR, text, keeps_lines=True)

    def writelines(self, lines: Iterable[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing: each text is logged at once."""


def websockets_only(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The WSGI application of a service without one."""
    start_response(
        "426 Upgrade Required",
        [("Content-Type", "text/plain"), ("Upgrade", "websocket"), ("Connection", "Upgrade")],
    )
    return [b"This is a websocket service: connect to it with ws:// or wss://.\n"]
