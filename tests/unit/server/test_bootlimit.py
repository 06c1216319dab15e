"""In forked children, as what is too late ends its process."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import gevent
import pytest

from gtask.config import Settings
from gtask.logs.setup import setup_logging
from gtask.server import bootlimit
from gtask.server.bootlimit import FAILED, BootLimit

LIMIT = 0.2


def in_child(hang: Callable[[], object], limit: float = LIMIT) -> tuple[int, str]:
    """The exit code of a process that hangs, and what it has told."""
    told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            boot_limit = BootLimit(limit, lambda why: os.write(told[1], why.encode()) and None)
            boot_limit.start()
            hang()
            os._exit(0)
        finally:
            os._exit(99)
    os.close(told[1])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with open(told[0]) as words:
        return code, words.read()


def sleep_in_the_kernel() -> None:
    time.sleep(60)


def wait_in_the_loop() -> None:
    gevent.reinit()
    gevent.sleep(60)


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("hang", [sleep_in_the_kernel, wait_in_the_loop, spin])
def test_it_says_where_it_hangs(hang: Callable[[], object]):
    code, words = in_child(hang)
    assert code == FAILED
    assert words.startswith("not ready within boot_timeout (0.2 s): it hangs in ")
    assert words.endswith(f", {hang.__name__}")
    assert __file__ in words


def test_the_log_has_the_stack(tmp_path):
    def hang() -> None:
        setup_logging(Settings(log_file=str(tmp_path / "log")))
        sleep_in_the_kernel()

    in_child(hang)
    said = (tmp_path / "log").read_text()
    assert "in hang" in said
    assert "in sleep_in_the_kernel" in said


def test_a_log_that_fails_does_not_keep_it(monkeypatch):
    monkeypatch.setattr(bootlimit, "log", None)
    assert in_child(sleep_in_the_kernel)[0] == FAILED


@pytest.mark.parametrize("limit", [0.0, 60.0])
def test_what_is_in_time_goes_on_as_before(limit: float):
    def check() -> None:
        boot_limit = BootLimit(limit, print)
        boot_limit.start()
        boot_limit.stop()
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)

    assert in_child(check, 0.0) == (0, "")


def test_an_alarm_of_the_users_is_the_users():
    def check() -> None:
        boot_limit = BootLimit(60.0, print)
        boot_limit.start()
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 1000)
        boot_limit.stop()
        assert signal.getsignal(signal.SIGALRM) == signal.SIG_IGN
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 900

    assert in_child(check, 0.0) == (0, "")
