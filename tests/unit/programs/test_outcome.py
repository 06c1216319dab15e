"""Exit codes, and a reader who has gone."""

from __future__ import annotations

import subprocess
import sys

from gtask.programs import outcome


def test_the_codes_are_those_that_are_documented():
    assert (outcome.DONE, outcome.FAILED, outcome.USAGE, outcome.NOT_RUNNING) == (0, 1, 2, 3)
    assert (outcome.CANNOT_CONNECT, outcome.BAD_CONFIGURATION) == (75, 78)


def test_a_failure_has_a_code_and_lines():
    failure = outcome.Failure(3, "one", "two")
    assert (failure.code, failure.lines) == (3, ("one", "two"))


def test_a_closed_pipe_is_not_reported_at_exit():
    program = """
import sys
from gtask.programs.outcome import stop_printing
try:
    while True:
        print("x" * 1000)
except BrokenPipeError:
    sys.exit(stop_printing())
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0
