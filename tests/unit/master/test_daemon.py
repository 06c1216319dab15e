"""Each in a process of its own, as going into the background is for good."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gtask.master.daemon import Reporter

ROOT = Path(__file__).parents[3]


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a session of its own, until the process that was called ends."""
    program = "import os, sys\nfrom gtask.master.daemon import daemonize, redirect_output\n" + code
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("code", "text", "shown"),
    [
        (0, "", ""),
        (1, "already running", "gtask-worker: already running\n"),
        (os.EX_CONFIG, "x.ini [gtask] pid: unknown key", "x.ini [gtask] pid: unknown key\n"),
    ],
)
def test_the_outcome_is_that_of_the_process_that_was_called(code: int, text: str, shown: str):
    done = run(f"daemonize().report({code}, {text!r})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", shown)


def test_a_daemon_that_dies_while_it_starts():
    done = run("daemonize()\nos._exit(0)")
    assert (done.returncode, done.stderr) == (1, "gtask-worker: the daemon died while starting\n")


def test_the_daemon_goes_on_without_a_terminal(tmp_path: Path):
    done = run(
        "caller = os.getsid(0)\n"
        "reporter = daemonize()\n"
        "facts = os.getsid(0) != caller, os.getsid(0) != os.getpid(), os.readlink('/proc/self/fd/0')\n"
        "print('nobody reads this')\n"
        "sys.stdout.flush()\n"
        "reporter.report(0, repr(facts))\n"
    )
    assert done.stderr == "gtask-worker: (True, True, '/dev/null')\n"
    assert done.stdout == ""


def test_what_it_prints_goes_to_the_log(tmp_path: Path):
    log = tmp_path / "log.txt"
    done = run(
        "from gtask.config import Settings\n"
        "from gtask.logs.setup import setup_logging\n"
        f"setup_logging(Settings(log_file={str(log)!r}))\n"
        "reporter = daemonize()\n"
        "print('printed', flush=True)\n"
        "os.write(2, b'from C\\n')\n"
        "reporter.report(0, '')\n"
    )
    assert done.returncode == 0
    assert log.read_text() == "printed\nfrom C\n"


def test_only_the_first_report_counts(capsys: pytest.CaptureFixture[str]):
    reporter = Reporter()
    assert not reporter.has_reported
    reporter.report(1, "no")
    reporter.report(0, "yes")
    assert reporter.has_reported
    assert capsys.readouterr().err == "gtask-worker: no\n"


def test_nobody_waits_for_the_report_any_more():
    waiting, pipe = os.pipe()
    os.close(waiting)
    Reporter(pipe).report(0, "")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(pipe)


def test_a_child_closes_its_copy():
    waiting, pipe = os.pipe()
    reporter = Reporter(pipe)
    reporter.close()
    reporter.close()
    assert os.read(waiting, 1) == b"", "and that has said nothing"
    os.close(waiting)
