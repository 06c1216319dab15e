"""What we let systemd know, sd_notify(3); nothing where `NOTIFY_SOCKET` is not set."""

from __future__ import annotations

import contextlib
import math
import os
import socket as flags
import time
from collections.abc import MutableMapping

from ..native import socket
from ..printable import printable

STATUS_CHARACTERS = 1000


class Notifier:
    """Sends the service manager our state; a manager that does not listen is no trouble.

    Args:
        environ: its variables are taken out, as they are not for our children.

    Attributes:
        watchdog_seconds: how often `watchdog` is due at the latest; infinite without a watchdog.
    """

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        watchdog_pid = environ.pop("WATCHDOG_PID", str(os.getpid()))
        microseconds = environ.pop("WATCHDOG_USEC", "")
        self._socket: socket | None = None
        self._address = "\0" + address[1:] if address.startswith("@") else address
        if address:
            self._socket = socket(flags.AF_UNIX, flags.SOCK_DGRAM | flags.SOCK_NONBLOCK)
        is_watched = microseconds.isdigit() and watchdog_pid == str(os.getpid())
        self.watchdog_seconds = int(microseconds) / 1e6 if is_watched else math.inf

    def ready(self, status: str) -> None:
        self._send("READY=1", f"MAINPID={os.getpid()}", _status(status))

    def reloading(self) -> None:
        self._send(
            "RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=Reloading"
        )

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", _status(status))

    def status(self, status: str) -> None:
        self._send(_status(status))

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def close(self) -> None:
        """Close the socket; in a forked child, which is not the service's main process."""
        if self._socket is not None:
            self._socket.close()

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)


def _status(text: str) -> str:
    """A line for people; what a user's module has raised must not begin another variable."""
    return f"STATUS={printable(text, STATUS_CHARACTERS)}"
