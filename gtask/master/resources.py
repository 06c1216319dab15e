"""What the master alone has open: at its start it opens them, at its end it closes and removes them.

A mold that it forks has copies of their descriptors, and closes these first of all.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

from ..config import Settings
from ..logs.setup import setup_logging
from .control import Control, Watch
from .listeners import Listeners
from .pidfile import AlreadyRunning, PidFile
from .signals import Signals
from .sockets import CannotListen, Listener
from .systemd import Notifier

FAILED = 1


class CannotStart(Exception):
    """The program ends with `code` and a line for the operator."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class Resources:
    """Signals, systemd's socket, listening sockets, pid file and control socket.

    Attributes:
        control: the control socket; None if there is none.
    """

    def __init__(self, settings: Settings) -> None:
        self.signals = Signals()
        self.notifier = Notifier(os.environ)
        self.listeners = Listeners(os.environ)
        self.control: Control | None = None
        self._pid_file = PidFile(settings.pid_file)

    def open(self, settings: Settings, watch: Watch) -> dict[str, Listener]:
        """Open all that the settings ask for; returns the services' listening sockets.

        Args:
            watch: the control socket's.

        Raises:
            CannotStart, AlreadyRunning, CannotListen, OSError: what is open then, `close` closes.
        """
        _open_log(settings)
        if settings.pid_file:
            self._pid_file.take()
        listeners = self.listeners.provide(settings.services, {})
        if settings.control:
            self.control = _open_control(settings.control, watch)
        return listeners

    def close(self) -> None:
        """Close and remove everything."""
        self.listeners.keep({})
        if self.control is not None:
            self.control.remove()  # while it is open, nobody's file has its number
            self.control.close()
        self._pid_file.release()
        self.signals.forget()

    def close_in_child(self, used: Mapping[str, Listener]) -> None:
        """After a fork: close the child's copies of all but the listeners that it uses."""
        self.signals.forget()
        self.listeners.close_in_child(used)
        if self.control is not None:
            self.control.close()
        self._pid_file.close()
        self.notifier.close()


def _open_log(settings: Settings) -> None:
    try:
        setup_logging(settings)
    except OSError as error:
        problem = f"{settings.file} [gtask] log_file: {error.filename}: {error.strerror}"
        raise CannotStart(os.EX_CONFIG, problem) from error


def _open_control(path: str, watch: Watch) -> Control:
    try:
        return Control(path, watch)
    except OSError as error:
        where = f"cannot listen on control socket {path}"
        raise CannotStart(os.EX_UNAVAILABLE, f"{where}: {error.strerror or error}") from error


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Whatever goes wrong inside becomes `CannotStart`, with its exit code."""
    try:
        yield
    except AlreadyRunning as error:
        raise CannotStart(FAILED, str(error)) from error
    except CannotListen as error:
        raise CannotStart(os.EX_UNAVAILABLE, str(error)) from error
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise CannotStart(FAILED, f"cannot start: {what}") from error
