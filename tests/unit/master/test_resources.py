"""In forked children, as a pid file's lock and the signals belong to a whole process."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings, Settings
from gtask.master.pidfile import AlreadyRunning
from gtask.master.resources import CannotStart, Resources, starting
from gtask.master.sockets import CannotListen

FAILED_HERE = 99


def in_child(function: Callable[[], object]) -> int:
    """Call it in a forked child; 0 if what it asserts holds."""
    pid = os.fork()
    if pid == 0:
        code = FAILED_HERE
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def settings(folder: Path, **changes: object) -> Settings:
    services = (ServiceSettings(name="T", listen=parse_address("text://127.0.0.1:0")),)
    files = {"pid_file": str(folder / "g.pid"), "control": str(folder / "g.sock")}
    return Settings(services=services, **{**files, **changes})


def ignore(fd: int, events: int) -> None:
    """Nobody polls here."""


def test_all_is_open_and_then_closed_and_removed(tmp_path: Path):
    def check() -> None:
        before = set(os.listdir("/proc/self/fd"))
        resources = Resources(settings(tmp_path))
        listeners = resources.open(settings(tmp_path), ignore)
        assert sorted(os.listdir(tmp_path)) == ["g.pid", "g.sock"]
        address = listeners["T"].socket.getsockname()
        socket.create_connection(address).close()
        resources.close()
        assert os.listdir(tmp_path) == []
        assert set(os.listdir("/proc/self/fd")) == before
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(address)

    assert in_child(check) == 0


def test_a_child_keeps_its_listener_alone_and_removes_nothing(tmp_path: Path):
    def check() -> None:
        before = len(os.listdir("/proc/self/fd"))
        resources = Resources(settings(tmp_path))
        listeners = resources.open(settings(tmp_path), ignore)

        def check_child() -> None:
            resources.close_in_child(listeners)
            assert (
                len(os.listdir("/proc/self/fd")) == before + 3
            )  # the socket, and the two ends of its lobby
            assert listeners["T"].socket.fileno() >= 0

        assert in_child(check_child) == 0
        assert sorted(os.listdir(tmp_path)) == ["g.pid", "g.sock"]
        socket.create_connection(listeners["T"].socket.getsockname()).close()
        resources.close()

    assert in_child(check) == 0


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (AlreadyRunning("already running as process 7"), 1, "already running as process 7"),
        (CannotListen("cannot listen on x"), os.EX_UNAVAILABLE, "cannot listen on x"),
        (PermissionError(13, "Permission denied", "/x"), 1, "cannot start: /x: Permission denied"),
        (OSError("out of luck"), 1, "cannot start: out of luck"),
    ],
)
def test_exit_codes(error: Exception, code: int, text: str):
    with pytest.raises(CannotStart) as caught, starting():
        raise error
    assert (caught.value.code, str(caught.value)) == (code, text)


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({"log_file": "/dev/null/x"}, os.EX_CONFIG, " [gtask] log_file: /dev/null"),
        ({"control": "/dev/null"}, os.EX_UNAVAILABLE, "cannot listen on control socket /dev/null"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, changes: dict, code: int, text: str):
    def check() -> None:
        wrong = settings(tmp_path, **changes)
        resources = Resources(wrong)
        with pytest.raises(CannotStart) as caught, starting():
            resources.open(wrong, ignore)
        resources.close()
        assert caught.value.code == code
        assert text in str(caught.value)

    assert in_child(check) == 0
