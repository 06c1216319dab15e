from __future__ import annotations

import os
import pty
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from gtask.master.signals import HANDLED, ReloadSignal, ScaleSignal, Signals, StopSignal

from ...support.wait import SLOWNESS, wait_until


@pytest.fixture
def signals() -> Iterator[Signals]:
    before = {number: signal.getsignal(number) for number in HANDLED}
    signals = Signals()
    yield signals
    signals.forget()
    for number, handler in before.items():
        signal.signal(number, handler)


def send(signals: Signals, *numbers: int) -> list:
    """What is read when these have come; the kernel delivers a process's own signals at once."""
    for number in numbers:
        os.kill(os.getpid(), number)
    assert select.select([signals], [], [], 5 * SLOWNESS)[0]
    return signals.read()


@pytest.mark.parametrize(
    ("number", "request_"),
    [
        (signal.SIGUSR1, ReloadSignal()),
        (signal.SIGUSR2, ReloadSignal()),
        (signal.SIGHUP, ReloadSignal()),
        (signal.SIGTTIN, ScaleSignal("SIGTTIN", 1)),
        (signal.SIGTTOU, ScaleSignal("SIGTTOU", -1)),
        (signal.SIGTERM, StopSignal(signal.SIGTERM)),
        (signal.SIGQUIT, StopSignal(signal.SIGQUIT)),
        (signal.SIGINT, StopSignal(signal.SIGINT)),
    ],
)
def test_what_each_asks_for(signals: Signals, number: int, request_):
    assert send(signals, number) == [request_]
    assert signals.read() == []


def test_they_are_read_in_their_order(signals: Signals):
    requests = send(signals, signal.SIGTTIN, signal.SIGUSR1, signal.SIGTERM)
    assert requests == [ScaleSignal("SIGTTIN", 1), ReloadSignal(), StopSignal(signal.SIGTERM)]


def test_a_child_that_ends_wakes_the_loop_and_asks_for_nothing(signals: Signals):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    assert select.select([signals], [], [], 5 * SLOWNESS)[0]
    assert signals.read() == []
    os.waitpid(pid, 0)


def test_they_are_given_back(signals: Signals):
    code = in_child(lambda: signals.forget() or os.kill(os.getpid(), signal.SIGTERM))
    assert code == -signal.SIGTERM
    assert send(signals, signal.SIGTERM) == [StopSignal(signal.SIGTERM)], "only in the child"


def in_child(function: Callable[[], object]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            function()
        finally:
            os._exit(9)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_hangup_after_the_terminal_has_been_closed_stops():
    """In a process with a terminal of its own; it says over a pipe what it has read."""
    said, say = os.pipe()
    pid, terminal = pty.fork()
    if pid == 0:
        try:
            signals = Signals()
            os.write(say, b"ready\n")
            select.select([signals], [], [], 5 * SLOWNESS)
            os.write(say, repr(signals.read()).encode())
        finally:
            os._exit(0)
    os.close(say)
    assert os.read(said, 100) == b"ready\n"
    os.close(terminal)
    assert wait_until(lambda: os.read(said, 100)) == b"[StopSignal(number=1)]"
    os.waitpid(pid, 0)
    os.close(said)
