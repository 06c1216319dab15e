"""What the kernel tells of processes, their titles, and their ties to their parents."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gtask import process


def run(program: str, *words: str) -> str:
    """What a process of its own prints."""
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    return done.stdout


TITLE = """
import sys
from gtask.process import set_title
set_title({title})
print(open("/proc/self/cmdline").read().rstrip(chr(0)), open("/proc/self/comm").read().strip(), sep="|")
"""


def test_a_title_is_shown_by_ps_and_in_short_by_top():
    shown = run(TITLE.format(title="'gtask: Tasks 3 text://h:1'"), "x" * 100)
    assert shown == "gtask: Tasks 3 text://h:1|gtask:Tasks-3-t\n"


def test_a_title_is_cut_to_the_room_that_the_command_line_has():
    shown = run(TITLE.format(title="'t' * 50000")).partition("|")[0]
    assert 0 < len(shown) < 5000
    assert set(shown) == {"t"}


def test_without_proc_nothing_is_shown(monkeypatch):
    def missing(*_):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert process._title_room.__wrapped__() == (0, 0)


def test_resident_memory_is_what_the_kernel_counts():
    here = process.resident_bytes(os.getpid())
    assert 0 < here <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 1048576


def test_a_process_that_is_gone_has_no_memory():
    assert process.resident_bytes(4_000_000) == 0


def test_orphans_are_adopted():
    program = """
import os
from gtask.process import adopt_orphans
adopt_orphans()
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.close(write)
        os.read(read, 1)  # until its parent has been waited for
        print(os.getppid(), flush=True)
        os._exit(0)
    os._exit(0)
os.wait()
os.close(write)
os.wait()
print(os.getpid())
"""
    parent, own = run(program).split()
    assert parent == own


def test_a_child_ends_with_its_parent():
    program = """
import os, signal
from gtask.process import die_with
read, write = os.pipe()
parent = os.getpid()
if os.fork() == 0:
    die_with(parent)
    os.write(write, b"x")
    signal.pause()
os.read(read, 1)
"""
    run(program)  # which ends only when the child's end of its output is closed


def test_a_child_whose_parent_has_gone_ends_at_once():
    program = """
import os
from gtask.process import die_with
if os.fork() == 0:
    die_with(1 << 30)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    assert run(program) == "1\n"


def test_what_the_kernel_refuses_is_an_error():
    with pytest.raises(OSError, match="prctl: Invalid argument"):
        process._prctl(process.PR_SET_PDEATHSIG, 1000)


def test_the_room_for_a_title_is_where_the_command_line_is():
    start, room = process._title_room.__wrapped__()
    with open("/proc/self/mem", "rb") as memory:
        memory.seek(start)
        assert memory.read(room) == Path(f"/proc/{os.getpid()}/cmdline").read_bytes()
