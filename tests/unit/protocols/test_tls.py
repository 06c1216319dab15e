from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest

from gtask.protocols.tls import TlsFilter


@pytest.fixture(scope="module")
def contexts(tmp_path_factory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    file = tmp_path_factory.mktemp("tls") / "cert.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        f"-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout {file}.key -out {file}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(file, Path(f"{file}.key"))
    return server, ssl.create_default_context(cafile=str(file))


@pytest.fixture
def ends(contexts) -> tuple[TlsFilter, TlsFilter]:
    """Both sides of a connection whose handshake has not begun."""
    server, client = contexts
    return (
        TlsFilter(server, server_side=True),
        TlsFilter(client, server_side=False, server_hostname="localhost"),
    )


def shake_hands(server: TlsFilter, client: TlsFilter) -> None:
    client.start()
    for _ in range(3):
        server.receive(client.take_output())
        client.receive(server.take_output())


def test_plain_text_goes_through(ends):
    server, client = ends
    client.send(b"waits for the handshake")
    assert client.waiting_bytes
    shake_hands(server, client)
    assert server.is_established
    client.send(b"hello")
    assert server.receive(client.take_output()).endswith(b"hello")


def test_it_tells_whether_something_is_half_here(ends):
    server, client = ends
    assert not server.is_mid_record
    client.start()
    hello = client.take_output()
    assert server.receive(hello[:50]) == b""
    assert server.is_mid_record, "a handshake has begun"
    server.receive(hello[50:])
    assert server.is_mid_record
    client.receive(server.take_output())
    server.receive(client.take_output())
    client.receive(server.take_output())
    assert not server.is_mid_record, "it is done"
    client.send(b"x" * 1000)
    record = client.take_output()
    assert server.receive(record[:500]) == b""
    assert server.is_mid_record
    assert server.receive(record[500:]) == b"x" * 1000
    assert not server.is_mid_record


def test_a_goodbye_is_whole(ends):
    server, client = ends
    shake_hands(server, client)
    client.close()
    assert server.receive(client.take_output()) == b""
    assert not server.is_mid_record
