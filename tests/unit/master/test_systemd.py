from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest

from gtask.master.systemd import Notifier


@pytest.mark.parametrize("address", ["path", "@abstract"])
def test_notifies(tmp_path: Path, address: str):
    name = str(tmp_path / "n") if address == "path" else f"@gtask-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        environ = {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000", "HOME": "/"}
        notifier = Notifier(environ)
        assert environ == {"HOME": "/"}
        assert notifier.watchdog_seconds == 3
        notifier.ready("fine")
        assert manager.recv(100).decode() == f"READY=1\nMAINPID={os.getpid()}\nSTATUS=fine"
        notifier.status("an exception's text\nMAINPID=1")
        assert manager.recv(100).decode() == r"STATUS=an exception's text\nMAINPID=1"
        notifier.close()


def test_a_watchdog_for_another_process_is_not_ours():
    assert Notifier({"WATCHDOG_USEC": "5", "WATCHDOG_PID": "1"}).watchdog_seconds == math.inf


def test_nobody_listens(tmp_path: Path):
    Notifier({}).ready("fine")
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    notifier.ready("fine")
    notifier.close()
