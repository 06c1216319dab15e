"""HTTP and websockets through TLS."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from ....support.wait import wait_until
from ....support.websocket import (
    BINARY,
    RawClient,
    ServiceThread,
    application,
    close_frame,
    frame,
    request,
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A self-signed certificate with its key, for localhost."""
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {file}.key -out {file}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.key").read_text())
    return file


@pytest.fixture(scope="module")
def server_context(certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01\x02\x00\x01"])
def test_a_tls_handshake_that_does_not_come_is_not_waited_for(server_context, begun):
    options = {"tls": server_context, "handshake_timeout": 0.2}
    with ServiceThread(**options) as service, RawClient(service.address) as raw:
        raw.send(begun)
        assert raw.rest() == b""
        wait_until(lambda: service.stats.connections == 0)


def test_tls(certificate, server_context):
    trust = ssl.create_default_context(cafile=str(certificate))
    with ServiceThread(tls=server_context, worker={"application": application}) as service:
        with RawClient(service.address) as raw:
            raw.socket = trust.wrap_socket(raw.socket, server_hostname="localhost")
            raw.send(b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n")
            assert raw.read_answer()[::2] == (200, b"/page")
            raw.upgrade(behind=frame(BINARY, b"x" * 40_000))
            assert raw.frame() == (BINARY, b"x" * 40_000)
            assert raw.echo("y" * 300_000)
            assert service.connection.request["wsgi.url_scheme"] == "https"
            raw.send(close_frame(1000))
            assert raw.close_code() == 1000
        with RawClient(service.address) as plain:
            plain.send(request())
            assert b"101" not in plain.rest()
        wait_until(lambda: service.stats.connections == 0)
