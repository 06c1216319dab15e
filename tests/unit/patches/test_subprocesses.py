"""`subprocess`: gevent's Popen where there is a hub, the standard library's where there is none."""

from __future__ import annotations

from ...support.patched import run_patched


def test_either_is_a_popen_and_works_as_one():
    run_patched(
        """
import subprocess
from gtask.patches.subprocesses import Popen
def use():
    process = subprocess.Popen(["sh", "-c", "cat; exit 3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert isinstance(process, subprocess.Popen)
    out, _ = process.communicate("in", timeout=20)
    try:
        subprocess.run(["sleep", "9"], timeout=0.1)
    except subprocess.TimeoutExpired:
        pass
    return out, process.returncode, type(process) is Popen, subprocess.getoutput("echo x")
assert use() == ("in", 3, True, "x")
assert in_thread(use) == ("in", 3, False, "x")
assert not isinstance(1, subprocess.Popen)
"""
    )


def test_no_hub_is_made_for_it():
    run_patched(
        """
import subprocess
assert subprocess.run(["sh", "-c", "exit 3"], capture_output=True).returncode == 3
assert get_hub_if_exists() is None
""",
        hub=False,
    )


def test_one_that_was_started_elsewhere_can_be_waited_for():
    run_patched(
        """
import subprocess
mine = subprocess.Popen(["sh", "-c", "sleep 0.2; exit 3"])
def late():
    first = mine.poll()
    try:
        mine.wait(0.01)
    except subprocess.TimeoutExpired:
        return first, mine.wait(20), mine.poll()
assert in_thread(late) == (None, 3, 3)
theirs = in_thread(subprocess.Popen, ["sh", "-c", "sleep 0.3; exit 4"])
with Ticks() as ticks:
    assert theirs.wait() == 4
assert ticks.count > 5
theirs = in_thread(subprocess.Popen, ["sh", "-c", "sleep 0.3; exit 5"])
with Ticks() as ticks:
    assert theirs.wait(20) == 5
assert ticks.count > 5
"""
    )
