from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gtask.process import resident_bytes

ROOT = Path(__file__).parents[2]


def test_resident_memory_is_what_the_kernel_counts():
    here = resident_bytes(os.getpid())
    assert 0 < here <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 1048576


def test_a_process_that_is_gone_has_no_memory():
    assert resident_bytes(4_000_000) == 0


def run(code: str) -> str:
    """What the program prints: titles and ties are of a whole process, so it is one of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.parametrize("title", ["gtask: mold 1", "x" * 100_000])
def test_a_title_is_cut_to_the_room_there_is(title: str):
    shown = run(
        f"from gtask.process import set_title; set_title({title!r})\n"
        "print(open('/proc/self/cmdline').read().rstrip(chr(0)), open('/proc/self/comm').read())"
    )
    line, name = shown.split(None, 1)[0], shown.rsplit(None, 1)[-1]
    assert title.startswith(line)
    assert name == title.replace(": ", ":").replace(" ", "-")[:15]


def test_a_child_of_another_parent_ends_at_once():
    code = "from gtask.process import die_with; die_with(1 << 22); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


def test_orphans_are_adopted():
    assert (
        run(
            "import os, sys\nfrom gtask.process import adopt_orphans\nadopt_orphans()\n"
            "ended, end = os.pipe()\n"
            "if os.fork() == 0:\n"
            "    if os.fork() == 0:\n"
            "        os.close(end)\n"
            "        os.read(ended, 1)\n"  # until the parent of this one has ended
            "        os._exit(7)\n"
            "    os._exit(0)\n"
            "os.wait(); os.close(end)\n"
            "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
        )
        == "7\n"
    )
