"""Lines that are written at once, later or never; nothing waits for any of them."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from gtask.logs import output
from gtask.logs.output import LogFile, Output, Stderr


class Scripted(Output):
    """Sends what the script says: so many bytes, or an error."""

    def __init__(self, *script: int | OSError) -> None:
        super().__init__()
        self.script = list(script)
        self.sent = b""

    def _send(self, data: bytes) -> int:
        step = self.script.pop(0) if self.script else len(data)
        if isinstance(step, OSError):
            raise step
        step = min(step, len(data))
        self.sent += data[:step]
        return step


def test_what_does_not_fit_is_kept_in_order():
    out = Scripted(2, BlockingIOError(), BlockingIOError())
    out.write(b"first\n")
    out.write(b"second\n")
    assert out.sent == b"fi"
    out.write(b"third\n")
    assert out.sent == b"first\nsecond\nthird\n"
    assert out.lost == 0


def test_what_cannot_be_written_is_counted_and_told():
    full = OSError("full")
    out = Scripted(full, full, full)
    for number in range(3):
        out.write(b"%d\n" % number)
    assert (out.sent, out.lost) == (b"", 3)
    out.write(b"at last\n")
    assert out.sent == b"3 lines were lost\nat last\n"
    assert out.lost == 0


def test_half_a_line_is_ended_before_the_next():
    out = Scripted(2, OSError("full"))
    out.write(b"first\n")
    out.write(b"second\n")
    assert out.sent == b"fi\n1 lines were lost\nsecond\n"


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(output, "KEPT_LINES", 3)
    out = Scripted(*[BlockingIOError()] * 5)
    for number in range(5):
        out.write(b"%d\n" % number)
    assert out.lost == 2
    out.flush()
    assert out.sent == b"2 lines were lost\n2\n3\n4\n"


def test_bytes_are_bounded_too(monkeypatch):
    monkeypatch.setattr(output, "KEPT_BYTES", 10)
    out = Scripted(BlockingIOError(), BlockingIOError(), BlockingIOError())
    for _ in range(3):
        out.write(b"12345\n")
    assert out.lost == 2


def test_flushing_takes_no_longer_than_it_may():
    out = Scripted(*[BlockingIOError()] * 1000)
    out.write(b"line\n")
    out.flush(0.05)
    assert out.sent == b""


def test_a_write_within_a_write_comes_behind_it():
    class Reentrant(Scripted):
        def _send(self, data: bytes) -> int:
            if data == b"first\n" and not self.sent:
                self.sent = b"-"
                self.write(b"from a signal's handler\n")
            return super()._send(data)

    out = Reentrant()
    out.write(b"first\n")
    assert out.sent == b"-first\nfrom a signal's handler\n"


def test_a_forked_child_writes_only_its_own(tmp_path: Path):
    out = LogFile(str(tmp_path / "x.log"))
    out._kept.append(b"the parent's\n")
    out._lock.acquire()  # as another thread would have it
    pid = os.fork()
    if pid == 0:
        out.write(b"the child's\n")
        os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "x.log").read_text() == "the child's\n"


def test_threads_write_whole_lines(tmp_path: Path):
    out = LogFile(str(tmp_path / "x.log"))

    def write(name: bytes) -> None:
        for _ in range(200):
            out.write(name * 20 + b"\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert len(lines) == 600
    assert {len(set(line)) for line in lines} == {1}


# -- a file ---------------------------------------------------------------------------------------


def test_a_renamed_file_is_left_when_there_is_another(tmp_path: Path):
    path, old = tmp_path / "x.log", tmp_path / "x.1"
    out = LogFile(str(path))
    number = out.fileno()
    path.rename(old)
    out.write(b"before it is made anew\n")
    assert not path.exists()
    out.reopen()
    out.write(b"after\n")
    assert (old.read_text(), path.read_text()) == ("before it is made anew\n", "after\n")
    path.rename(old)
    path.touch()  # by logrotate's `create`
    out.follow()
    out.write(b"last\n")
    assert path.read_text() == "last\n"
    assert out.fileno() == number


def test_a_file_that_cannot_be_opened_leaves_the_old_one(tmp_path: Path):
    path = tmp_path / "x.log"
    out = LogFile(str(path))
    path.rename(tmp_path / "x.1")
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        out.reopen()
    out.write(b"still here\n")
    assert (tmp_path / "x.1").read_text() == "still here\n"


def test_a_descriptor_that_became_another_files_is_not_written_to(tmp_path: Path):
    out = LogFile(str(tmp_path / "x.log"))
    ours, theirs = socket.socketpair()
    os.dup2(
        theirs.fileno(), out.fileno()
    )  # somebody has closed all descriptors, and opened his own
    out.write(b"line\n")
    assert (tmp_path / "x.log").read_text() == "line\n"
    ours.setblocking(False)
    with pytest.raises(BlockingIOError):
        ours.recv(100)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize(
    ("mode", "make", "owner"),
    [
        (0o755, None, 65534),
        (0o777, None, 0),
        (0o755, "symlink", 0),
        (0o755, "link", 0),
        (0o755, "plain", 65534),
    ],
)
def test_who_gets_the_file(tmp_path: Path, mode: int, make: str | None, owner: int):
    folder, target = tmp_path / "logs", tmp_path / "target"
    folder.mkdir()
    folder.chmod(mode)
    target.touch()
    path = folder / "x.log"
    if make == "symlink":
        path.symlink_to(target)
    elif make == "link":
        path.hardlink_to(target)
    elif make == "plain":
        path.touch()
    LogFile(str(path), 65534).close()
    assert path.stat().st_uid == owner


# -- standard error -------------------------------------------------------------------------------


@pytest.fixture
def stderr():
    """Standard error can be replaced by the test."""
    saved = os.dup(2)
    yield
    os.dup2(saved, 2)
    os.close(saved)


def test_a_pipe_that_is_full_keeps_lines(stderr):
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    out = Stderr()
    line = b"x" * 999 + b"\n"
    for _ in range(500):
        out.write(line)
    assert os.get_blocking(2), "it is others', too, and stays as it was"
    text = b""
    while len(text) < 500 * 1000:
        text += os.read(reader, 100_000)
        out.flush()
    assert text == line * 500
    os.close(reader)
    out.write(line)
    assert out.lost == 1


def test_a_pipe_that_cannot_be_opened_once_more(stderr, monkeypatch):
    def refuse(*_: object) -> int:
        raise OSError("no /proc")

    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    monkeypatch.setattr(os, "open", refuse)
    out = Stderr()
    for _ in range(200):
        out.write(b"x" * 999 + b"\n")
    text = b""
    while len(text) < 200_000:
        text += os.read(reader, 100_000)
        out.flush()
    os.close(reader)


def test_a_socket_is_not_waited_for(stderr):
    reader, theirs = socket.socketpair()
    os.dup2(theirs.fileno(), 2)
    out = Stderr()
    for _ in range(2000):
        out.write(b"x" * 999 + b"\n")
    assert out._kept
    assert os.get_blocking(theirs.fileno())
    reader.close()


def test_it_is_closed(stderr):
    os.close(2)
    out = Stderr()
    out.write(b"lost\n")
    assert out.lost == 1


@pytest.mark.parametrize("closes_all", [False, True])
def test_what_becomes_number_2_later_is_not_written_to(stderr, tmp_path: Path, closes_all: bool):
    with (tmp_path / "first").open("wb") as file:
        os.dup2(file.fileno(), 2)
    out = Stderr()
    out.write(b"one\n")
    if closes_all:
        os.close(out._fd)
        out.write(b"two\n")
        os.close(out._fd)
    with (tmp_path / "theirs").open("wb") as file:
        os.dup2(file.fileno(), 2)
    out.write(b"three\n")
    assert (tmp_path / "theirs").read_text() == ""
    told = ["one", "two"] if closes_all else ["one", "three"]
    assert (tmp_path / "first").read_text().split() == told
    assert out.lost == closes_all


def test_it_can_be_closed(stderr):
    reader, writer = os.pipe()
    os.dup2(writer, 2)
    os.close(writer)
    out = Stderr()
    out.write(b"line\n")
    out.close()
    os.close(2)
    assert os.read(reader, 100) == b"line\n"
    assert os.read(reader, 100) == b""
    os.close(reader)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a link away")
def test_a_strangers_link_is_not_followed(tmp_path: Path):
    precious, path = tmp_path / "precious", tmp_path / "log"
    precious.write_text("")
    path.symlink_to(precious)
    output = LogFile(str(path))
    output.write(b"ours\n")
    os.chown(path, 65534, 65534, follow_symlinks=False)
    with pytest.raises(PermissionError, match="is a link of another user's"):
        LogFile(str(path))
    other = tmp_path / "other"
    other.write_text("")
    path.unlink()
    path.symlink_to(other)
    os.chown(path, 65534, 65534, follow_symlinks=False)
    output.write(b"still\n")
    output.close()
    assert precious.read_text() == "ours\nstill\n"
    assert other.read_text() == ""
