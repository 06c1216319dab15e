"""One attempt to connect has one outcome, over all addresses that a name has."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time

import gevent
import gevent.socket
import pytest
from gevent.server import StreamServer

from gtask.address import Address, parse_address
from gtask.net.connector import Connector
from gtask.net.reactor import current_reactor


class Attempt:
    """A connector whose outcomes are counted."""

    def __init__(self, address: Address | str, timeout: float = 5.0) -> None:
        if isinstance(address, str):
            address = parse_address(address)
        self.sockets: list[socket.socket] = []
        self.failures: list[str] = []
        self.connector = Connector(
            current_reactor(), address, timeout, self.sockets.append, self.failures.append
        )
        self.connector.start()

    def wait(self, seconds: float = 5.0) -> Attempt:
        with gevent.Timeout(seconds):
            while not self.sockets and not self.failures:
                gevent.sleep(0.002)
        gevent.sleep(0.01)
        assert len(self.sockets) + len(self.failures) == 1
        for connected in self.sockets:
            connected.close()
        return self


@pytest.fixture
def port():
    server = StreamServer(("127.0.0.1", 0), lambda *_: None)
    server.start()
    yield server.server_port
    server.stop()


@pytest.fixture
def full_listener():
    """It answers no handshake, as its listen queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        with socket.create_connection(listener.getsockname()):
            yield listener


@pytest.fixture
def full(full_listener):
    return full_listener.getsockname()


def test_connects(port):
    assert Attempt(f"text://127.0.0.1:{port}").wait().sockets


def test_a_peer_that_vanishes_is_noticed(port):
    attempt = Attempt(f"text://127.0.0.1:{port}")
    with gevent.Timeout(5):
        while not attempt.sockets:
            gevent.sleep(0.002)
    (made,) = attempt.sockets
    assert made.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    options = (socket.TCP_NODELAY, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
    values = [made.getsockopt(socket.IPPROTO_TCP, option) for option in options]
    assert values == [1, 30, 10, 3]
    made.close()


def test_connects_to_a_host_that_takes_its_time(full_listener):
    attempt = Attempt(Address("text", *full_listener.getsockname()))
    gevent.sleep(0.05)
    assert not attempt.sockets
    full_listener.accept()[0].close()
    assert attempt.wait().sockets  # with the next SYN, after a second


def test_refused():
    assert Attempt("text://127.0.0.1:1").wait().failures == ["Connection refused"]
    assert Attempt("text://[::1]:1").wait().failures


def test_unix(tmp_path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        assert Attempt(Address("text", path=str(tmp_path / "s"))).wait().sockets
    assert Attempt(Address("text", path="/nonexistent")).wait().failures
    assert Attempt(Address("text", path="/" + "x" * 200)).wait().failures == [
        "AF_UNIX path too long"
    ]


def test_times_out(full):
    started = time.monotonic()
    attempt = Attempt(Address("text", *full), 0.1).wait()
    assert attempt.failures == ["timed out"]
    assert time.monotonic() - started < 1


def test_a_name_that_there_is_not():
    (failure,) = Attempt("text://nonexistent.invalid:1").wait(20).failures
    assert "not known" in failure or "failure" in failure


def test_each_address_of_a_name_is_tried(port, full, monkeypatch):
    addresses = [("127.0.0.1", 1), full, ("127.0.0.1", port)]

    def found(*_args, **_options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(gevent.socket, "getaddrinfo", found)
    for _ in range(5):
        assert Attempt("text://some.name:1", 0.3).wait().sockets
    addresses.pop()
    assert Attempt("text://some.name:1", 0.2).wait().failures


@pytest.mark.parametrize("name", ["ä" * 70, "a..b", ".", "x" * 70, "a\0b"])
def test_a_name_that_idna_refuses(name):
    started = time.monotonic()
    (failure,) = Attempt(Address("text", name, 1)).wait(20).failures
    assert failure
    assert time.monotonic() - started < 2


def test_a_final_dot_and_a_scope(port):
    assert Attempt(f"text://localhost.:{port}").wait().sockets
    (failure,) = Attempt("text://[fe80::1%lo]:1", 1).wait().failures  # an address, if nobody's
    assert "not known" not in failure
    assert Attempt("text://[fe80::1%nosuch]:1").wait().failures


def test_what_connected_while_nothing_ran_the_loop_counts(full_listener):
    attempt = Attempt(Address("text", *full_listener.getsockname()), 1.5)
    gevent.sleep(0)
    full_listener.accept()[0].close()
    time.sleep(2)  # with the next SYN, after a second
    assert attempt.wait().sockets


def test_a_look_up_that_hangs(monkeypatch):
    monkeypatch.setattr(gevent.socket, "getaddrinfo", lambda *_, **__: gevent.sleep(0.3) or [])
    attempt = Attempt("text://some.name:1", 0.05).wait()
    assert attempt.failures == ["name look-up timed out"]
    gevent.sleep(0.35)
    assert len(attempt.failures) == 1


def test_cancelled(port, full):
    attempts = [
        Attempt(f"text://127.0.0.1:{port}"),
        Attempt(Address("text", *full), 0.05),
        Attempt(f"text://localhost:{port}"),
    ]
    for attempt in attempts:
        attempt.connector.cancel()
    gevent.sleep(0.1)
    assert [attempt.sockets + attempt.failures for attempt in attempts] == [[], [], []]


def test_no_descriptor_left(port):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    hoard = []
    try:
        with contextlib.suppress(OSError):
            while True:
                hoard.append(os.dup(0))
        attempt = Attempt(f"text://127.0.0.1:{port}")
    finally:
        for descriptor in hoard:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert attempt.wait().failures == ["Too many open files"]
