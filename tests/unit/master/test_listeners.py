from __future__ import annotations

import os
import socket

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings
from gtask.master.listeners import Listeners
from gtask.master.sockets import CannotListen


def service(name: str, url: str) -> ServiceSettings:
    return ServiceSettings(name=name, listen=parse_address(url))


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


def test_our_own_address_is_named_as_ours():
    listeners = Listeners({})
    first = listeners.provide([service("A", "text://127.0.0.1:0")], {})
    port = first["A"].bound.port
    with pytest.raises(CannotListen) as caught:
        listeners.provide([service("A", f"text://0.0.0.0:{port}")], first)
    assert str(caught.value) == (
        f"cannot listen on text://0.0.0.0:{port}: address already in use; "
        f"text://127.0.0.1:{port} is open until this program is restarted"
    )
    listeners.keep({})


def test_a_socket_of_systemds_that_is_more_than_asked_for_is_named():
    listeners = Listeners({})
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as passed:
        listeners.passed.append(("unit", passed))
        port = passed.getsockname()[1]
        with pytest.raises(CannotListen, match=f"systemd passes a socket for .*:{port}"):
            listeners.provide([service("A", f"text://127.0.0.1:{port}")], {})


def test_what_was_adopted_before_a_failure_can_be_adopted_again():
    listeners = Listeners({})
    passed = socket.create_server(("127.0.0.1", 0))
    listeners.passed.append(("unit", passed))
    url = f"text://127.0.0.1:{passed.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bad = service("B", f"text://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(CannotListen):
            listeners.provide([service("A", url), bad], {})
    assert listeners.provide([service("A", url)], {})["A"].socket is passed
    listeners.keep({})


def test_a_file_that_another_has_put_at_a_sockets_path_stays(tmp_path):
    path = tmp_path / "s"
    listeners = Listeners({})
    listeners.provide([service("A", f"text+unix://{path}")], {})
    path.unlink()
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(path))
        listeners.keep({})
        assert path.exists()
