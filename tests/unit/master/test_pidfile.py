from __future__ import annotations

import fcntl
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


def fails(path: Path) -> str:
    """Why it cannot be taken, which changes nothing."""
    with pytest.raises(FileExistsError) as caught:
        PidFile(str(path)).take()
    return caught.value.strerror


def test_a_link_is_not_followed(tmp_path: Path):
    precious, path = tmp_path / "precious", tmp_path / "x.pid"
    precious.write_text("7\n")
    path.symlink_to(precious)
    assert fails(path) == "exists and is not a pid file"
    assert precious.read_text() == "7\n"
    assert path.is_symlink()
    assert running_pid(str(path)) == 0


@pytest.mark.parametrize("text", ["[gtask]\n", "7 8\n", "7\n" * 20, "-7\n"])
def test_what_is_no_pid_file_is_not_emptied(tmp_path: Path, text: str):
    path = tmp_path / "x.pid"
    path.write_text(text)
    assert fails(path) == "exists and is not a pid file"
    assert path.read_text() == text


def test_neither_is_a_pipe_nor_a_file_that_has_another_name(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    assert fails(tmp_path / "pipe") == "exists and is not a pid file"
    (tmp_path / "precious").write_text("7\n")
    os.link(tmp_path / "precious", tmp_path / "link")
    assert fails(tmp_path / "link") == "exists and is not a pid file"
    with pytest.raises(IsADirectoryError):
        PidFile(str(tmp_path)).take()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_another_users_file_is_left_alone(tmp_path: Path):
    path = tmp_path / "x.pid"
    path.write_text("7\n")
    os.chown(path, 65534, 65534)
    assert fails(path) == "exists and is another user's"
    assert path.read_text() == "7\n"


def test_a_stranger_who_may_only_read_it_locks_nobody_out(tmp_path: Path):
    path = tmp_path / "x.pid"
    path.write_text("")
    locked, done = os.pipe(), os.pipe()
    stranger = os.fork()
    if stranger == 0:
        fcntl.lockf(os.open(path, os.O_RDONLY), fcntl.LOCK_SH)
        os.write(locked[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(locked[0], 1)
    assert running_pid(str(path)) == 0, "a lock for reading is no master's"
    holder = PidFile(str(path))
    holder.take()
    assert path.read_text() == f"{os.getpid()}\n"
    os.write(done[1], b"x")
    os.waitpid(stranger, 0)
    holder.release()
    for fd in (*locked, *done):
        os.close(fd)


def test_asking_who_holds_it_takes_no_lock(tmp_path: Path):
    path = tmp_path / "x.pid"
    path.write_text("")
    asking = os.open(path, os.O_RDONLY)
    for _ in range(100):
        assert running_pid(str(path)) == 0
    assert in_child(lambda: take(path)) == 0
    os.close(asking)


def test_anothers_file_at_the_path_is_not_removed(tmp_path: Path):
    path = tmp_path / "x.pid"
    first = PidFile(str(path))
    first.take()
    path.unlink()

    def second() -> int:
        PidFile(str(path)).take()
        first.close()
        return 0

    assert in_child(second) == 0
    assert path.exists()
    first.release()
    assert path.exists()
