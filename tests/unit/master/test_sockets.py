from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings
from gtask.master.sockets import CannotListen, Listeners, adopt, listen, take_passed


def service(name: str, url: str) -> ServiceSettings:
    return ServiceSettings(name=name, listen=parse_address(url))


def test_what_connections_inherit():
    listener = listen(parse_address("text://127.0.0.1:0"), 10, 0o660)
    with socket.create_connection(listener.socket.getsockname()):
        assert not listener.socket.getblocking()
        listener.socket.setblocking(True)
        accepted, _ = listener.socket.accept()
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
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


def test_passed_sockets_are_for_the_process_named():
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert take_passed(environ) == []
    assert environ == {"HOME": "/"}


def test_a_passed_socket_is_found_by_address_before_name():
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    passed = [("Web", sockets[0]), ("other", sockets[1])]
    address = parse_address(f"text://127.0.0.1:{sockets[1].getsockname()[1]}")
    found = adopt(passed, "Web", address)
    assert found is not None
    assert found.socket is sockets[1]
    assert not found.is_ours
    found = adopt(passed, "Web", parse_address("text://127.0.0.1:1"))
    assert found is not None
    assert found.socket is sockets[0]
    assert passed == []
    assert adopt(passed, "Web", address) is None
    for each in sockets:
        each.close()


def test_listeners_are_kept_over_reloads():
    listeners = Listeners({})
    first = listeners.provide([service("A", "text://127.0.0.1:0")], {})
    port = first["A"].bound.port
    again = listeners.provide(
        [service("A", "text://127.0.0.1:0"), service("B", "text://127.0.0.1:0")], first
    )
    assert again["A"] is first["A"]
    assert again["B"] is not first["A"]
    listeners.keep({"B": again["B"]})
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    listeners.keep({})


def test_a_renamed_service_keeps_its_fixed_address():
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"text://127.0.0.1:{free.getsockname()[1]}"
    listeners = Listeners({})
    first = listeners.provide([service("Old", url)], {})
    again = listeners.provide([service("New", url)], first)
    assert again["New"] is first["Old"]
    listeners.keep({})


def test_what_was_opened_before_a_failure_is_closed_again():
    listeners = Listeners({})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = service("B", f"text://127.0.0.1:{taken.getsockname()[1]}")
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(CannotListen, match="address already in use"):
            listeners.provide([service("A", "text://127.0.0.1:0"), bad], {})
        assert len(os.listdir("/proc/self/fd")) == before
