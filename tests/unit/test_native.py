"""The system's functions from before gevent put its own in their place."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from gtask import native

NAMES = (
    "epoll",
    "fork",
    "getaddrinfo",
    "local",
    "poll",
    "signal",
    "sleep",
    "socket",
    "thread_id",
    "waitpid",
)


@pytest.mark.parametrize(
    "before",
    ["from gtask import native", "from gevent import monkey; monkey.patch_all()"],
    ids=["imported first", "patched first"],
)
def test_none_is_gevents(before):
    program = f"""
{before}
import gevent.monkey
gevent.monkey.patch_all()
from gtask import native
for name in {NAMES}:
    assert not getattr(native, name).__module__.startswith("gevent"), name
assert native.socket is not __import__("socket").socket
from gevent._hub_local import get_hub_if_exists
native.sleep(0)
assert native.thread_id() > 0
assert get_hub_if_exists() is None
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_accepted_sockets_are_native():
    with native.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        address = listener.getsockname()
        with socket.create_connection(address) as client, native.accept(listener) as server:
            assert type(server) is native.socket
            assert (server.family, server.type) == (listener.family, listener.type)
            client.sendall(b"x")
            assert server.recv(2) == b"x"


def test_messages_of_a_pair_keep_their_bounds():
    one, other = native.seqpacket_pair()
    with one, other:
        one.send(b"first")
        one.send(b"second")
        assert (other.recv(100), other.recv(100)) == (b"first", b"second")
        other.send(b"back")
        assert one.recv(100) == b"back"
