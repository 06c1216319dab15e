"""A request that is hidden in another one is never served: not to clients, nor behind proxies."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from ..support.http_proxies import Haproxy, Nginx, ProxyProcess
from ..support.smuggling import AMBIGUOUS, CHUNKED, HEAD, NEXT
from ..support.spawn import SpawnedWorker
from ..support.websocket import RawClient

INI = """
[worker:Web]
listen = websocket://127.0.0.1:0
handler = page
"""
PAGE = """
def on_message(connection, data):
    connection.send(data)

def application(environ, start_response):
    print("served", environ["PATH_INFO"], flush=True)
    body = environ["PATH_INFO"].encode() + b"|" + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""
NGINX = """
http {
    access_log off;
    client_body_temp_path FOLDER;
    proxy_temp_path FOLDER;
    fastcgi_temp_path FOLDER;
    uwsgi_temp_path FOLDER;
    scgi_temp_path FOLDER;
    upstream web { server 127.0.0.1:%d; keepalive 4; }
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass http://web;
            proxy_http_version 1.1;
            proxy_set_header Host $host;
            proxy_set_header Connection "upgrade";
            proxy_set_header Upgrade $http_upgrade;
            proxy_request_buffering off;
            proxy_ignore_client_abort on;
        }
    }
}
"""
HAPROXY = """
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s
    option accept-invalid-http-request
    http-reuse always
frontend web
    bind 127.0.0.1:PORT
    default_backend web
backend web
    server one 127.0.0.1:%d
"""


@pytest.fixture(scope="module")
def worker(module_spawn) -> SpawnedWorker:
    return module_spawn(INI, page=PAGE)


@pytest.fixture(
    scope="module", params=[(Nginx, NGINX), (Haproxy, HAPROXY)], ids=["nginx", "haproxy"]
)
def proxy(request, worker, tmp_path_factory) -> Iterator[ProxyProcess]:
    kind, config = request.param
    folder = tmp_path_factory.mktemp("proxy")
    with closing(kind(folder, config % worker.address("Web")[1])) as running:
        yield running


def exchange(address: object, request: bytes) -> bytes:
    """All answers to what is sent in one go, of a client that sends no more."""
    with RawClient(address) as raw:
        try:
            raw.send(request)
            raw.socket.shutdown(socket.SHUT_WR)
            return raw.rest()
        except ConnectionError:
            return b""


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_it_is_refused_and_the_connection_closed(worker, name):
    answer = exchange(worker.address("Web"), AMBIGUOUS[name])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.count(b"HTTP/1.1") == 1
    assert "served /smuggled" not in worker.text
    assert " ERROR " not in worker.text


def test_nothing_gets_past_a_proxy_that_the_proxy_has_not_seen(worker, proxy):
    for name, request in AMBIGUOUS.items():
        before = worker.text.count("served /smuggled")
        answer = exchange(proxy.address, request)
        served = worker.text.count("served /smuggled") - before
        assert served <= answer.count(b"/smuggled|"), name  # else somebody else got that answer
    assert " ERROR " not in worker.text


def test_requests_in_order_follow_each_other_behind_a_proxy(worker, proxy):
    chunks = HEAD + CHUNKED + b"\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"
    length = HEAD + b"Expect: 100-CONTINUE\r\nContent-Length: 5\r\n\r\nhello"
    last = NEXT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for _ in range(3):  # on kept connections to the worker
        with RawClient(proxy.address) as raw:
            raw.send(chunks + length + last)
            answer = raw.rest()
        bodies = [part.rsplit(b"\r\n", 1)[-1] for part in answer.split(b"HTTP/1.1 ")]
        assert [body for body in bodies if body] == [b"/first|hello"] * 2 + [b"/smuggled|"]


def test_websockets_pass_proxies(worker, proxy):
    with RawClient(proxy.address) as raw:
        raw.upgrade(host="localhost", origin="http://localhost")
        assert raw.echo("x" * 100_000)
