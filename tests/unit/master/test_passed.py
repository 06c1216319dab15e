from __future__ import annotations

import socket

from gtask.address import parse_address
from gtask.master.passed import adopt, take_passed


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
