from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from gtask.address import parse_address
from gtask.master.holders import holder


def this_process() -> str:
    return f"process {os.getpid()} ({Path('/proc/self/comm').read_text().strip()})"


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_tcp_port_is_held_by_who_listens(host: str, url: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        port = listener.getsockname()[1]
        assert holder(parse_address(f"text://{url}:{port}")) == this_process()
    assert holder(parse_address(f"text://{url}:{port}")) == ""


def test_a_connection_does_not_hold_its_port():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as connection,
    ):
        port = connection.getsockname()[1]
        assert holder(parse_address(f"text://127.0.0.1:{port}")) == ""


def test_a_unix_socket_is_held_by_who_listens(tmp_path: Path):
    path = tmp_path / "t.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert holder(parse_address(f"text+unix://{path}")) == this_process()
    assert holder(parse_address(f"text+unix://{path}")) == ""
