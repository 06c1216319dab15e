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
