"""What is left in a greenlet, and the end of a forked process."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
from greenlet import getcurrent, greenlet

from gtask.patches.leftovers import CURRENT_THREAD, end_if_forked, forget_current_thread


def test_a_greenlet_that_has_asked_for_its_thread_gets_another_next():
    own = greenlet(lambda: None)
    own.__dict__[CURRENT_THREAD] = "thread"
    threading._active[id(own)] = "thread"
    forget_current_thread(own)
    assert id(own) not in threading._active
    assert own.__dict__ == {}
    forget_current_thread(own)


def test_who_has_not_forked_goes_on():
    assert getcurrent().__dict__ == {}
    end_if_forked(None)


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        ("None", 0, ""),
        ("SystemExit(3)", 3, ""),
        ("SystemExit()", 0, ""),
        ("SystemExit('words')", 1, ""),
        ("SystemExit(256 + 7)", 7, ""),
        ("ValueError('no')", 1, "ValueError: no"),
    ],
)
def test_how_a_process_ends(error, code, told):
    program = f"""
import sys
from gtask.patches.leftovers import end_process
print("flushed", end="")
sys.stderr.flush()
end_process({error})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (code, "flushed")
    assert told in done.stderr
    assert bool(told) == bool(done.stderr)


def test_streams_that_are_closed_or_none_are_no_hindrance():
    program = "import sys; from gtask.patches.leftovers import end_process; sys.stderr = None; sys.stdout.close(); end_process(None)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
