from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from gtask.master.pidfile import AlreadyRunning, PidFile, running_pid


def in_child(function) -> int:
    """Call it in a forked child; returns its result, 0 to 255."""
    pid = os.fork()
    if pid == 0:
        code = 255
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def take(path: Path) -> int:
    try:
        PidFile(str(path)).take()
    except AlreadyRunning as error:
        return 1 if str(error) == f"already running as process {os.getppid()}" else 2
    return 0


def test_only_one_process_holds_it(tmp_path: Path):
    path = tmp_path / "run" / "x.pid"
    holder = PidFile(str(path))
    holder.take()
    # Not read here: a process that closes the file, by whatever descriptor, gives up its lock.
    assert in_child(lambda: int(path.read_text() == f"{os.getppid()}\n")) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert in_child(lambda: take(path)) == 1
    assert in_child(lambda: int(running_pid(str(path)) == os.getppid())) == 1
    holder.release()
    assert not path.exists()
    assert in_child(lambda: take(path)) == 0


def test_a_file_without_its_process_is_stale(tmp_path: Path):
    path = tmp_path / "x.pid"
    path.write_text(f"{os.getpid()}\n")
    assert running_pid(str(path)) == 0
    assert in_child(lambda: take(path)) == 0
    assert running_pid(str(path)) == 0, "that one has ended without removing it"


def test_a_child_of_the_holder_does_not_hold_it(tmp_path: Path):
    path = tmp_path / "x.pid"
    holder = PidFile(str(path))
    holder.take()
    assert in_child(lambda: holder.close() or int(path.exists())) == 1
    assert in_child(lambda: take(path)) == 1
    holder.release()


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_nonsense_is_nobody(tmp_path: Path, text: str):
    path = tmp_path / "x.pid"
    path.write_text(text)
    assert running_pid(str(path)) == 0
    assert running_pid(str(tmp_path / "none")) == 0
