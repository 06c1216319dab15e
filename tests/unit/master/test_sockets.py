from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gtask.address import parse_address
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


def test_ipv6_does_not_take_the_ipv4_port():
    six = listen(parse_address("text://[::]:0"), 10, 0o660)
    port = six.bound.port
    four = listen(parse_address(f"text://0.0.0.0:{port}"), 10, 0o660)
    assert str(six.bound) == f"text://[::]:{port}"
    four.close()
    six.close()


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
    with pytest.raises(CannotListen, match="already in use by process"):
        listen(parse_address(f"text+unix://{path}"), 10, 0o600)
    listener.close()
    assert not path.exists()
