"""The WSGI environment, as the standard library's validator and frameworks want it."""

from __future__ import annotations

import pytest

from gtask.protocols.http import Request
from gtask.server.web.environ import make_environ, split_host

BASE = {"SERVER_NAME": "127.0.0.1", "SERVER_PORT": "8080", "wsgi.version": (1, 0)}


def make(
    target="/", headers=(("host", "a.test"),), base=BASE, client=("1.2.3.4", 5), scheme="http"
):
    request = Request("GET", target, "1.1", list(headers), keeps_alive=True)
    return make_environ(request, base, client, scheme)


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        ("/", "/", "", "a.test"),
        ("/a%20b/%C3%BC?x=%20&y", "/a b/\u00c3\u00bc", "x=%20&y", "a.test"),
        ("/?", "/", "", "a.test"),
        ("//evil/x?a?b", "//evil/x", "a?b", "a.test"),
        ("*", "*", "", "a.test"),
        ("http://b.test:81/x?y", "/x", "y", "b.test:81"),
        ("HTTPS://b.test", "/", "", "b.test"),
        ("http://b.test?y", "/", "y", "b.test"),
    ],
)
def test_targets(target, path, query, host):
    environ = make(target)
    assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == (path, query)
    assert environ["HTTP_HOST"] == host


def test_headers():
    headers = [
        ("content-type", "a/b"),
        ("content-length", "5"),
        ("x-a", "1"),
        ("x-a", "2"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x_a", "3"),
        ("x_forwarded_for", "evil"),
    ]
    environ = make(headers=headers)
    assert {
        name: value for name, value in environ.items() if name.startswith(("HTTP", "CONT"))
    } == {
        "CONTENT_TYPE": "a/b",
        "CONTENT_LENGTH": "5",
        "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
    }


@pytest.mark.parametrize(
    ("host", "scheme", "name", "port"),
    [
        ("a.test", "http", "a.test", "80"),
        ("a.test", "https", "a.test", "443"),
        ("a.test:8443", "https", "a.test", "8443"),
        ("[::1]:81", "http", "[::1]", "81"),
        ("", "http", "localhost", "80"),
    ],
)
def test_a_unix_socket_has_the_name_it_is_called_by(host, scheme, name, port):
    environ = make(
        headers=[("host", host)],
        base={"SERVER_NAME": "", "SERVER_PORT": ""},
        client="",
        scheme=scheme,
    )
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == (name, port)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("", "")


@pytest.mark.parametrize(
    ("host", "parts"),
    [("a", ("a", "")), ("a:1", ("a", "1")), ("[::1]", ("[::1]", "")), ("[::1]:1", ("[::1]", "1"))],
)
def test_splitting(host, parts):
    assert split_host(host) == parts
