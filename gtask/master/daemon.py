"""Going into the background, with the start's outcome as the exit code of the foreground."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import NoReturn

from .. import native
from ..logs.setup import log_descriptor
from ..printable import printable_text


class Reporter:
    """Reports how the start went, on the terminal or to the process that waits for the daemon.

    Args:
        pipe: to that process; negative if there is none.

    Attributes:
        has_reported: it is known how the start went.
    """

    def __init__(self, pipe: int = -1) -> None:
        self._pipe = pipe
        self.has_reported = False

    def report(self, code: int, text: str) -> None:
        """Report the exit code and a line; only the first time counts."""
        if self.has_reported:
            return
        self.has_reported = True
        if self._pipe < 0:
            _print(code, text)
            return
        with contextlib.suppress(OSError):  # nobody waits any more
            os.write(self._pipe, json.dumps([code, text]).encode() + b"\n")
        self.close()

    def close(self) -> None:
        """Close the pipe; also in a forked child, which has no say in it."""
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def daemonize() -> Reporter:
    """Go on in the background; the process that was called ends when the outcome is reported."""
    outcome, pipe = os.pipe()
    if native.fork():
        os.close(pipe)
        _end_with(outcome)
    os.close(outcome)
    os.setsid()
    if native.fork():
        os._exit(0)  # so that the daemon leads no session, and never gets a terminal
    redirect_output()
    return Reporter(pipe)


def _end_with(outcome: int) -> NoReturn:
    """In the process that was called: wait for the daemon's report, and end with its exit code."""
    report = b""
    while not report.endswith(b"\n") and (part := os.read(outcome, 65536)):
        report += part
    code, text = json.loads(report) if report else (1, "the daemon died while starting")
    _print(code, text)
    os._exit(code)


def _print(code: int, text: str) -> None:
    if text:  # problems of the configuration begin with the file's name
        prefix = "" if code == os.EX_CONFIG else "gtask-worker: "
        print(prefix + printable_text(text), file=sys.stderr, flush=True)


def redirect_output() -> None:
    """Read from nowhere; what is written to the terminal goes into the log file, if there is one."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    log = log_descriptor()
    log_fd = null if log is None else log
    sys.stdout.flush()
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(null)
