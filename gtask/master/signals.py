"""The signals that the master is sent: how they reach its loop, and what each of them asks for.

A handler could run between any two instructions, so ours do nothing: the interpreter writes the
number of each signal into a pipe (`signal.set_wakeup_fd`), which the loop polls and reads.
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass

from .. import native

RELOAD = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SCALE = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}
STOP = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
HANDLED = (*RELOAD, *SCALE, *STOP, signal.SIGCHLD)


@dataclass(frozen=True)
class ReloadSignal:
    """Take up changed code and configuration."""


@dataclass(frozen=True)
class ScaleSignal:
    """So many processes more or, negative, fewer; `name` is the signal's."""

    name: str
    delta: int


@dataclass(frozen=True)
class StopSignal:
    """Stop, or stop with less patience; the number says how."""

    number: int


Request = ReloadSignal | ScaleSignal | StopSignal


class Signals:
    """Handles the signals, from its making until `forget`; poll `fileno` and `read` then."""

    def __init__(self) -> None:
        self._has_terminal = has_terminal()
        self._numbers = [number for number in HANDLED if not _is_for_nohup(number)]
        self._readable, self._writable = os.pipe()
        os.set_blocking(self._readable, False)
        os.set_blocking(self._writable, False)
        for number in self._numbers:
            native.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # whoever started us may have blocked some

    def fileno(self) -> int:
        return self._readable

    def read(self) -> list[Request]:
        """What the signals that have come since ask for; SIGCHLD is there to wake the loop only."""
        try:
            numbers = os.read(self._readable, 4096)
        except BlockingIOError:
            return []
        requests = [request for number in numbers if (request := self._meaning(number)) is not None]
        # Several reloads at once are one: none of them can mean newer code than the others.
        reloads = [request for request in requests if request == ReloadSignal()]
        for _ in reloads[1:]:
            requests.remove(ReloadSignal())
        return requests

    def _meaning(self, number: int) -> Request | None:
        if number == signal.SIGHUP and self._has_terminal and not has_terminal():
            return StopSignal(number)  # the terminal that we run in has been closed
        if number in RELOAD:
            return ReloadSignal()
        if number in SCALE:
            known = signal.Signals(number)
            return ScaleSignal(known.name, SCALE[known])
        return StopSignal(number) if number in STOP else None

    def forget(self) -> None:
        """Give the signals their defaults back; also for a forked child, which handles its own."""
        signal.set_wakeup_fd(-1)
        for number in self._numbers:
            native.signal(number, signal.SIG_DFL)
        os.close(self._readable)
        os.close(self._writable)


def _is_for_nohup(number: int) -> bool:
    """The signal was ignored when we were started, as nohup(1) has it, and so it stays."""
    return number == signal.SIGHUP and native.getsignal(number) == signal.SIG_IGN


def has_terminal() -> bool:
    """This process has a controlling terminal, which can be closed under it."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
