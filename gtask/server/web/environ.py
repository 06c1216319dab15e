"""The WSGI environment of a request: PEP 3333's keys, whole on a unix socket and behind a proxy, too."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

from ...protocols.http import Request

Environ = dict[str, Any]

DEFAULT_PORTS = {"http": "80", "https": "443"}
BY_THEMSELVES = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
ADDRESS = re.compile(r"(?i:https?)://([^/?#]*)(.*)")


def make_environ(request: Request, base: Environ, client: Any, scheme: str) -> Environ:
    """What is known of a request before anybody reads its body.

    Args:
        base: the server's own keys.
        client: the client's address, as sockets give it.
        scheme: "http" or "https", as the client has written it.
    """
    environ = {**base, "REQUEST_METHOD": request.method, "wsgi.url_scheme": scheme}
    environ["SERVER_PROTOCOL"] = f"HTTP/{request.version}"
    _add_headers(environ, request.headers)
    _add_target(environ, request.target)
    _add_client(environ, client)
    _add_server(environ, scheme)
    return environ


def _add_headers(environ: Environ, headers: list[tuple[str, str]]) -> None:
    for name, value in headers:
        if "_" in name:
            continue  # it would be taken for the one with a dash, which a proxy may have set
        key = BY_THEMSELVES.get(name) or "HTTP_" + name.upper().replace("-", "_")
        if key in environ:
            value = environ[key] + ("; " if name == "cookie" else ",") + value
        environ[key] = value


def _add_target(environ: Environ, target: str) -> None:
    if address := ADDRESS.fullmatch(target):  # the form for proxies: it outdoes the header Host
        environ["HTTP_HOST"], target = address.groups()
        target = target if target.startswith("/") else "/" + target
    path, _, environ["QUERY_STRING"] = target.partition("?")
    environ["PATH_INFO"] = unquote_to_bytes(path.encode("latin-1")).decode("latin-1")


def _add_client(environ: Environ, client: Any) -> None:
    host, port = client[:2] if isinstance(client, tuple) else ("", "")
    environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = str(host), str(port)


def _add_server(environ: Environ, scheme: str) -> None:
    """On a unix socket the server has no address but that by which the client calls it."""
    if not environ.get("SERVER_NAME"):
        host, port = split_host(environ.get("HTTP_HOST", ""))
        environ["SERVER_NAME"] = host or "localhost"
        environ["SERVER_PORT"] = port or DEFAULT_PORTS[scheme]


def split_host(host: str) -> tuple[str, str]:
    """Name and port of a header Host, or of what stands behind the scheme of an origin."""
    name, colon, port = host.rpartition(":")
    if colon and not port.endswith("]"):
        return name, port
    return host, ""
