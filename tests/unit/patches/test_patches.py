"""All of it together: once, and beside what a script has patched in its own way."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("before", "is_ours"),
    [
        ("", True),
        ("from gevent import monkey; monkey.patch_all()", True),
        ("from gevent import monkey; monkey.patch_all(thread=False, subprocess=False)", False),
    ],
)
def test_it_is_done_once_and_only_to_what_gevent_has_patched(before, is_ours):
    program = f"""
{before}
from gtask.patches import patch_all
patch_all()
patch_all()
import os, subprocess, threading
from gtask.patches import locks, subprocesses
assert (threading.Lock is locks.Lock) == {is_ours}
assert (subprocess.Popen is subprocesses.Popen) == {is_ours}
pid = os.fork()
if pid == 0:
    os._exit(3)
assert os.waitpid(pid, 0) == (pid, 3 << 8)
with threading.Lock():
    pass
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
