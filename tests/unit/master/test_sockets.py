from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gtask.address import parse_address
from gtask.master import sockets
from gtask.master.sockets import CannotListen, listen


def test_what_connections_inherit():
    listener = listen(parse_address("text://127.0.0.1:0"), 10, 0o660)
    with socket.create_connection(listener.socket.getsockname()):
        assert not listener.socket.getblocking()
        listener.socket.setblocking(True)
        accepted, _ = listener.socket.accept()
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    accepted.close()
    listener.close()


def test_any_ipv6_address_is_any_address():
    six = listen(parse_address("text://[::]:0"), 10, 0o660)
    port = six.bound.port
    assert str(six.bound) == f"text://[::]:{port}"
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 1).close()
    with pytest.raises(CannotListen, match="already in use"):
        listen(parse_address(f"text://0.0.0.0:{port}"), 10, 0o660)
    six.close()


@pytest.mark.parametrize(("host", "other"), [("0.0.0.0", "::1"), ("[::1]", "127.0.0.1")])
def test_other_addresses_are_of_one_family(host: str, other: str):
    listener = listen(parse_address(f"text://{host}:0"), 10, 0o660)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((other, listener.bound.port), 1)
    listener.close()


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch):
    """Have every name stand for these addresses."""

    def info(host: str, port: int) -> tuple:
        if ":" in host:
            return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (host, port, 0, 0))
        return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))

    def resolve(*hosts: str, port: int = 0) -> None:
        infos = [info(host, port) for host in hosts]
        monkeypatch.setattr(sockets, "getaddrinfo", lambda *_, **__: infos)

    return resolve


def test_a_name_is_each_of_its_addresses_on_one_port(resolve):
    resolve("::1", "127.0.0.1", "127.0.0.1")
    listener = listen(parse_address("text://localhost:0"), 10, 0o660)
    assert len(listener.sockets) == 2
    port = listener.bound.port
    for host in ("127.0.0.1", "::1"):
        socket.create_connection((host, port), 1).close()
    listener.refuse()
    for host in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), 1)


def test_an_address_that_this_machine_has_not_is_passed_over(resolve):
    resolve("192.0.2.1", "127.0.0.1")
    listener = listen(parse_address("text://name:0"), 10, 0o660)
    assert [each.getsockname()[0] for each in listener.sockets] == ["127.0.0.1"]
    listener.close()
    resolve("192.0.2.1")
    with pytest.raises(CannotListen, match="Cannot assign requested address"):
        listen(parse_address("text://name:0"), 10, 0o660)


def test_a_port_that_is_taken_at_one_address_is_taken(resolve):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        resolve("::1", "127.0.0.1", port=port)
        with pytest.raises(CannotListen, match="already in use"):
            listen(parse_address(f"text://localhost:{port}"), 10, 0o660)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("::1", port), 1)


def test_refusing_works_on_a_socket_that_others_hold():
    listener = listen(parse_address("text://127.0.0.1:0"), 10, 0o660)
    address = listener.socket.getsockname()
    held = os.dup(listener.socket.fileno())
    listener.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, 1)
    os.close(held)


def test_unix_file_has_its_mode_and_is_removed(tmp_path: Path):
    path = tmp_path / "new" / "t.sock"
    listener = listen(parse_address(f"text+unix://{path}"), 10, 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(CannotListen, match="already in use"):
        listen(parse_address(f"text+unix://{path}"), 10, 0o600)
    listener.close()
    assert not path.exists()
