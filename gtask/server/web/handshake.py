"""The opening handshake of RFC 6455, the server's side: from a WSGI environment to an answer.

Nothing here reads, writes or waits. What is in order by section 4.2.1 is answered as section 4.2.2
says; what is not, by a `Refusal`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ...protocols.websocket import accept_key
from .environ import DEFAULT_PORTS, Environ, split_host

VERSION = "13"

Headers = list[tuple[str, str]]
Chooser = Callable[[list[str], Environ], str | None]


class Refusal(NamedTuple):
    """Why there is no upgrade.

    Attributes:
        status: of the answer.
        why: its body, and what the log says.
        headers: of the answer, beyond those of every refusal.
    """

    status: str
    why: str
    headers: tuple[tuple[str, str], ...] = ()


SHUTTING_DOWN = Refusal("503 Service Unavailable", "shutting down")


def asks_for_websocket(environ: Environ) -> bool:
    """Whether a request is a handshake, in order or not."""
    return "websocket" in _tokens(environ, "HTTP_UPGRADE")


def find_fault(environ: Environ, origins: tuple[str, ...]) -> Refusal | None:
    """What is wrong with a handshake, None if nothing is.

    Args:
        origins: the pages that may connect, see `is_origin_allowed`.
    """
    return (
        _fault_of_request(environ)
        or _fault_of_websocket_headers(environ)
        or _fault_of_origin(environ, origins)
    )


def _fault_of_request(environ: Environ) -> Refusal | None:
    if environ["REQUEST_METHOD"] != "GET":
        return Refusal("405 Method Not Allowed", "a websocket begins with GET", (("Allow", "GET"),))
    if environ["SERVER_PROTOCOL"] != "HTTP/1.1":
        return _bad_request("a websocket needs HTTP/1.1")
    if "upgrade" not in _tokens(environ, "HTTP_CONNECTION"):
        return _bad_request("the header Connection: Upgrade is missing")
    if not environ.get("HTTP_HOST"):
        return _bad_request("the header Host is missing")
    if environ.get("CONTENT_LENGTH", "0") != "0" or "HTTP_TRANSFER_ENCODING" in environ:
        return _bad_request("an upgrade has no body")
    return None


def _fault_of_websocket_headers(environ: Environ) -> Refusal | None:
    if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != VERSION:
        return Refusal(
            "426 Upgrade Required",
            f"only Sec-WebSocket-Version {VERSION} is spoken here",
            (("Sec-WebSocket-Version", VERSION), ("Upgrade", "websocket")),
        )
    if accept_key(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")) is None:
        return _bad_request("Sec-WebSocket-Key is not 16 bytes in base64")
    return None


def _fault_of_origin(environ: Environ, origins: tuple[str, ...]) -> Refusal | None:
    if is_origin_allowed(environ, origins):
        return None
    return Refusal("403 Forbidden", f"origin {environ['HTTP_ORIGIN']} may not connect")


def _bad_request(why: str) -> Refusal:
    return Refusal("400 Bad Request", why)


def is_origin_allowed(environ: Environ, origins: tuple[str, ...]) -> bool:
    """Whether the page of that Origin may connect, so that no foreign page acts for its visitor.

    Args:
        origins: those that may, in full; ``*``: any; none: that of the header Host.
    """
    origin = environ.get("HTTP_ORIGIN", "").lower()
    if not origin or "*" in origins:
        return True
    if origins:
        return any(_normal(origin) == _normal(allowed.lower()) for allowed in origins)
    scheme, separator, _ = origin.partition("://")
    own = scheme + separator + environ["HTTP_HOST"].lower()
    return bool(separator) and _normal(origin) == _normal(own)


def _normal(origin: str) -> str:
    """Without the port where it is the scheme's: browsers leave that out, some proxies put it in."""
    scheme, separator, host = origin.partition("://")
    name, port = split_host(host.rstrip("/"))
    if not port or port == DEFAULT_PORTS.get(scheme):
        return scheme + separator + name
    return f"{scheme}{separator}{name}:{port}"


def choose_subprotocol(chooser: Chooser | None, environ: Environ) -> str | None:
    """The subprotocol for a handshake, as the user's `chooser` wants it.

    Raises:
        ValueError: the client has not offered that one.
    """
    header = environ.get("HTTP_SEC_WEBSOCKET_PROTOCOL", "")
    offered = [name for part in header.split(",") if (name := part.strip())]
    if chooser is None or not offered:
        return None
    chosen = chooser(offered, environ)
    if chosen is not None and chosen not in offered:
        raise ValueError(f"choose_subprotocol: {chosen!r} was not offered by the client")
    return chosen


def upgrade_headers(environ: Environ, subprotocol: str | None) -> Headers:
    """The headers of the answer to a handshake that is in order."""
    headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", accept_key(environ["HTTP_SEC_WEBSOCKET_KEY"]) or ""),
    ]
    if subprotocol is not None:
        headers.append(("Sec-WebSocket-Protocol", subprotocol))
    return headers


def _tokens(environ: Environ, header: str) -> list[str]:
    return [token.strip().lower() for token in environ.get(header, "").split(",")]
