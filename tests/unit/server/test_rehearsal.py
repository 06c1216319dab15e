"""A worker's life, played through: all of it happens, and nothing of it is left."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import logging, os
logging.basicConfig()
from gevent._hub_local import get_hub_if_exists
from gtask import scoreboard
from gtask.server import rehearsal

def descriptors():
    return len(os.listdir("/proc/self/fd"))

boards = []
def board(capacity):
    boards.append(scoreboard.Scoreboard(capacity))
    return boards[0]

rehearsal.Scoreboard = board
rehearsal.ROUNDS = 2
before = descriptors()
"""

ENDED = """
assert get_hub_if_exists() is None
assert descriptors() == before
"""


def run(code: str) -> str:
    """Run it in a process that has no hub; returns what is logged."""
    program = f"{PROGRAM}{code}{ENDED}"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_all_tasks_are_done_and_no_hub_or_descriptor_is_left():
    logged = run("""
rehearsal.rehearse()
tasks = sum(b"echo" in line or b"nap" in line for line in rehearsal.LINES)
assert boards[0].ints[scoreboard.DONE] == tasks * rehearsal.CALLERS * rehearsal.ROUNDS
""")
    assert logged == ""


def test_a_rehearsal_that_fails_is_told_and_ends():
    logged = run("""
rehearsal.LINES = None
rehearsal.rehearse()
""")
    assert "the rehearsal of a worker has failed" in logged
