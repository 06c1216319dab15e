from __future__ import annotations

import os
import socket

import pytest

from gtask.address import parse_address
from gtask.master import passed as module
from gtask.master.passed import adopt, in_the_way, take_passed


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


def passed_at(host: str, *, both: bool = False) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, 0), family=family, dualstack_ipv6=both)


@pytest.mark.parametrize(
    ("host", "both", "wanted", "fits"),
    [
        ("::", True, "0.0.0.0", True),
        ("::", True, "[::]", True),
        ("::", False, "0.0.0.0", False),
        ("::", False, "[::]", True),
        ("::", True, "127.0.0.1", False),
        ("::", True, "[::1]", False),
        ("0.0.0.0", False, "0.0.0.0", True),
        ("0.0.0.0", False, "[::]", False),
        ("127.0.0.1", False, "localhost", True),
    ],
)
def test_which_socket_serves_which_address(host: str, both: bool, wanted: str, fits: bool):
    listener = passed_at(host, both=both)
    port = listener.getsockname()[1]
    passed = [("unit", listener)]
    found = adopt(passed, "T", parse_address(f"text://{wanted}:{port}"))
    assert (found is not None) is fits
    listener.close()


def test_a_name_gets_all_its_sockets(monkeypatch: pytest.MonkeyPatch):
    four = passed_at("127.0.0.1")
    port = four.getsockname()[1]
    six = socket.create_server(("::1", port), family=socket.AF_INET6)
    six_and_four = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
    monkeypatch.setattr(
        module,
        "getaddrinfo",
        lambda host, port, family: [(family, 1, 6, "", (six_and_four[family], port))],
    )
    passed = [("a", four), ("b", six)]
    found = adopt(passed, "T", parse_address(f"text://localhost:{port}"))
    assert found is not None
    assert set(found.sockets) == {four, six}
    assert passed == []
    found.close()


def test_what_is_in_the_way_is_named():
    listener = passed_at("::", both=True)
    port = listener.getsockname()[1]
    passed = [("unit", listener)]
    where = f"[::]:{port}"
    assert in_the_way(passed, parse_address(f"text://127.0.0.1:{port}")) == where
    assert in_the_way(passed, parse_address("text://127.0.0.1:1")) == ""
    assert in_the_way(passed, parse_address("text+unix:///x")) == ""
    listener.close()


def test_what_is_no_listening_stream_is_passed_over(caplog, monkeypatch: pytest.MonkeyPatch):
    readable, writable = os.pipe()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    monkeypatch.setattr(module, "FIRST_PASSED_FD", datagrams.fileno())
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "T"}
    passed = take_passed(environ)
    assert adopt(passed, "T", parse_address("text://127.0.0.1:1")) is None
    passed[0][1].detach()
    monkeypatch.setattr(module, "FIRST_PASSED_FD", readable)
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
    assert take_passed(environ) == []
    assert "which is no socket" in caplog.text
    datagrams.close()
    for fd in (readable, writable):
        os.close(fd)
