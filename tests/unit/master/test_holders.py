from __future__ import annotations

import ast
import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gtask.address import parse_address
from gtask.master.holders import holder

from ...support.wait import wait_until

LISTEN = """
import socket, sys
family, host = int(sys.argv[1]), sys.argv[2]
listener = socket.socket(family)
listener.bind((host, 0) if family != socket.AF_UNIX else host)
listener.listen()
print(listener.getsockname(), flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def another(family: int, host: str):
    """A process that listens; yields how it is named, and the address."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(int(family)), host],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        address = ast.literal_eval(process.stdout.readline()) if family != socket.AF_UNIX else host
        name = Path(f"/proc/{process.pid}/comm").read_text().strip()
        yield f"process {process.pid} ({name})", address
        process.stdin.close()


@pytest.mark.parametrize(("host", "url"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_a_tcp_port_is_held_by_who_listens(host: str, url: str):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with another(family, host) as (name, address):
        port = address[1]
        assert holder(parse_address(f"text://{url}:{port}")) == name
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
    with another(socket.AF_UNIX, str(path)) as (name, _):
        wait_until(lambda: holder(parse_address(f"text+unix://{path}")) == name)
    assert holder(parse_address(f"text+unix://{path}")) == ""


def test_what_is_our_own_is_nobodys_and_a_childs_copy_is_not_either():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = subprocess.Popen(["sleep", "60"], pass_fds=[listener.fileno()])
        try:
            assert holder(parse_address(f"text://127.0.0.1:{listener.getsockname()[1]}")) == ""
        finally:
            child.kill()
            child.wait()
