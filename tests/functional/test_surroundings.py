"""Where a service is started, and what it lacks there: it is survived, or told in a line."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT, SpawnedWorker
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
pid_file = run/pid
control = control.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:{port}
tasks = some_tasks
{lines}
"""
TASKS = """
import os, resource, sys
from gtask import task

@task
def add(a, b):
    return a + b

@task
def where():
    return os.path.basename(os.getcwd())

@task
def descriptors():
    return sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:3]

@task
def say(text):
    print(text, flush=True)
    sys.stderr.write(text)
    return [os.readlink(f"/proc/self/fd/{fd}") for fd in range(3)]
"""
GTASK = [sys.executable, "-m", "gtask", "-c", "worker.ini"]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that a service can be started in, at port 0."""
    return furnish(tmp_path)


def furnish(folder: Path, lines: str = "", port: int = 0) -> Path:
    (folder / "worker.ini").write_text(INI.format(port=port, lines=lines))
    (folder / "some_tasks.py").write_text(TASKS)
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Started:
    """A service that was started by some command line; its output is in `text`."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.output = folder / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=folder, env=ENV, stdin=subprocess.PIPE, stdout=output, stderr=output
            )

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(10 * SLOWNESS)
        finally:
            self.process.kill()
            self.process.wait()
            assert self.process.stdin is not None
            self.process.stdin.close()

    @property
    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def peer(self) -> Peer:
        def port() -> str:
            assert self.process.poll() is None, self.text
            return "".join(re.findall(r"ready: \S+:(\d+)", self.text)[-1:])

        return Peer(("127.0.0.1", int(wait_until(port, 20, self.text))))


def shell(folder: Path, line: str) -> Started:
    """Start it by a line of shell, in which GTASK is the command."""
    return Started(folder, "bash", "-c", line.replace("GTASK", " ".join(GTASK)))


# -- terminals, streams, signals ------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["nohup", ""])
def test_nohup_is_obeyed(place: Path, prefix: str):
    """In a shell on a terminal that is closed then."""
    command = " ".join([prefix, *GTASK])
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place)
        os.environ["PYTHONPATH"] = str(ROOT)
        os.execv("/bin/bash", ["bash", "--norc", "-i"])
    try:
        os.write(terminal, f"{command} > output 2>&1 &\n".encode())
        output = place / "output"
        wait_until(lambda: drained(terminal) and output.exists() and "ready" in output.read_text())
        master = int((place / "run/pid").read_text())
        os.close(terminal)
        os.waitpid(pid, 0)
        if prefix:
            time.sleep(0.5)
            os.kill(master, signal.SIGHUP)
            time.sleep(0.5)
            (port,) = re.findall(r"ready: \S+:(\d+)", output.read_text())
            with Peer(("127.0.0.1", int(port))) as peer:
                assert peer.bare("add", 1, 2) == 3
            assert "HUP" not in output.read_text()
            os.kill(master, signal.SIGTERM)
        wait_until(lambda: "stopped" in output.read_text())
    finally:
        with_pid = place / "run/pid"
        if with_pid.exists():
            os.kill(int(with_pid.read_text()), signal.SIGKILL)


def drained(terminal: int) -> bool:
    """Take what the terminal shows, so that nobody waits for us to."""
    while select.select([terminal], [], [], 0)[0]:
        os.read(terminal, 10000)
    return True


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_closed_standard_streams(tmp_path: Path, closed: str):
    port = free_port()
    place = furnish(tmp_path, port=port)
    with shell(place, f"exec GTASK {closed}"):
        wait_until(lambda: accepts(port))
        with Peer(("127.0.0.1", port)) as peer:
            assert peer.bare("descriptors") == [0, 1, 2]
            streams = peer.bare("say", "printed")
    for number, sign in enumerate(("<&-", " >&-", "2>&-")):
        assert (streams[number] == "/dev/null") == (sign in f" {closed}"), streams


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


BLOCKING = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGABRT, signal.SIGCHLD):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_signals_that_whoever_starts_us_has_blocked_or_ignored(place: Path):
    with Started(place, sys.executable, "-c", BLOCKING, *GTASK) as started:
        with started.peer() as peer:
            assert peer.bare("add", 1, 2) == 3
        done = subprocess.run(
            [*GTASK, "connections"], cwd=place, env=ENV, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        started.process.terminate()
        assert started.process.wait(5 * SLOWNESS) == 0
    assert "stopped" in started.text


# -- the working directory ------------------------------------------------------------------------


def test_a_reload_follows_the_link_that_the_directory_was_entered_by(tmp_path: Path):
    for number in (1, 2, 3):
        release = tmp_path / f"release{number}"
        release.mkdir()
        furnish(release, f"max_tasks = {number * 1000}")
        (release / "late.py").write_text(f"number = {number}\n")
        tasks = (
            TASKS
            + f"""
@task
def release():
    import late
    return [{number}, late.number]
"""
        )
        (release / "some_tasks.py").write_text(tasks)
    current = tmp_path / "current"
    current.symlink_to("release1")
    with shell(tmp_path, f"cd {current}; exec GTASK") as started:
        with started.peer() as peer:
            assert peer.bare("where") == "release1"
            move(current, "release2")
            shutil.rmtree(tmp_path / "release1/run", ignore_errors=True)
            assert peer.bare("where") == "release1"
            assert peer.bare("release") == [1, 1], "what it imports late is of its own release"
        reloads(started, signal.SIGHUP, "2")
        with started.peer() as peer:
            assert peer.bare("release") == [2, 2]
            assert peer.bare("where") == "release2"
        shutil.rmtree(tmp_path / "release1")
        current.unlink()
        started.process.send_signal(signal.SIGHUP)
        wait_until(lambda: f"No such file or directory: '{current}'" in started.text)
        with started.peer() as peer:
            assert peer.bare("where") == "release2"
        current.symlink_to("release3")
        reloads(started, signal.SIGUSR1, "3")
        with started.peer() as peer:
            assert peer.bare("release") == [3, 3]


def move(link: Path, target: str) -> None:
    other = link.with_name("new")
    other.symlink_to(target)
    other.rename(link)


def reloads(started: Started, number: int, generation: str) -> None:
    before = started.text.count("ready:")
    started.process.send_signal(number)
    wait_until(lambda: started.text.count("ready:") > before, 20, started.text)


def test_a_reload_follows_a_link_in_python_path(
    spawn: Callable[..., SpawnedWorker], tmp_path: Path
):
    for number in (1, 2):
        (tmp_path / f"release{number}").mkdir()
        text = "from gtask import task\n@task\ndef release():\n    import late\n    return late.n\n"
        (tmp_path / f"release{number}/released.py").write_text(text)
        (tmp_path / f"release{number}/late.py").write_text(f"n = {number}\n")
    current = tmp_path / "current"
    current.symlink_to("release1")
    ini = INI.format(port=0, lines="").replace("some_tasks", "released")
    worker = spawn(ini.replace("stop_t", f"python_path = {current}\nstop_t"))
    move(current, "release2")
    with worker.peer() as peer:
        assert peer.bare("release") == 1
    assert worker.command("reload").returncode == 0
    with worker.peer() as peer:
        assert peer.bare("release") == 2


def test_python_path_comes_before_the_working_directory(spawn, tmp_path: Path):
    (tmp_path / "first").mkdir()
    (tmp_path / "first/twice.py").write_text(
        "from gtask import task\n@task\ndef a():\n    return 1\n"
    )
    ini = INI.format(port=0, lines="").replace("some_tasks", "twice")
    ini = ini.replace("stop_t", f"python_path = {tmp_path}/first\nstop_t")
    worker = spawn(ini, twice="from gtask import task\n@task\ndef a():\n    return 2\n")
    with worker.peer() as peer:
        assert peer.bare("a") == 1


def test_a_directory_that_has_been_removed(place: Path):
    place.joinpath("worker.ini").rename(place / "absolute.ini")
    line = f"mkdir gone; cd gone; rmdir ../gone; exec GTASK -c {place}/absolute.ini"
    with shell(place, line) as started:
        assert started.process.wait(10 * SLOWNESS) == 1
    assert "cannot start: working directory: has been removed" in started.text
    assert "Traceback" not in started.text


# -- what a machine may lack ----------------------------------------------------------------------


def serves(started: Started, *lines: str) -> None:
    """It serves and stops, and has said these lines, and no traceback."""
    with started, started.peer() as peer:
        assert peer.bare("add", 1, 2) == 3
    assert started.process.returncode == 0
    for line in lines:
        assert line in started.text
    assert "Traceback" not in started.text


def fails(started: Started, code: int, line: str) -> None:
    """It ends with the code, and has said the line, and no traceback."""
    with started:
        assert started.process.wait(10 * SLOWNESS) == code
    assert line in started.text
    assert "Traceback" not in started.text


@pytest.mark.parametrize("descriptors", [64, 16])
def test_few_descriptors(place: Path, descriptors: int):
    said = f"a process may have {descriptors} descriptors (ulimit -n), which is not enough for"
    serves(shell(place, f"ulimit -n {descriptors}; exec GTASK"), said)


def test_too_few_descriptors(place: Path):
    fails(shell(place, "ulimit -n 7; exec GTASK"), 69, "Too many open files")


def test_no_environment(place: Path):
    serves(shell(place, f"exec env -i PYTHONPATH={ROOT} {' '.join(GTASK)}"))


def test_a_locale_that_knows_no_letter_of_the_file(tmp_path: Path):
    place = furnish(tmp_path, "; 작업")
    ini = (place / "worker.ini").read_text().replace("Tasks", "일꾼 100%")
    (place / "worker.ini").write_text(ini, encoding="utf-8")
    bare = "export LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0;"
    with shell(place, f"{bare} exec GTASK") as started, started.peer() as peer:
        assert peer.bare("add", 1, 2) == 3
        for command in ("check", "status"):
            line = f"{bare} {' '.join(GTASK)} {command}"
            done = subprocess.run(["bash", "-c", line], cwd=place, env=ENV, capture_output=True)
            assert (done.returncode, done.stderr) == (0, b"")
    (place / "worker.ini").write_text(ini.replace("run/pid", "run/작업"), encoding="utf-8")
    fails(shell(place, f"{bare} exec GTASK"), 78, "is no file name in this locale")


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change what is mounted")


@needs_root
def test_no_proc(tmp_path: Path):
    place = furnish(tmp_path, "max_rss_mb = 500")
    line = "exec unshare -m bash -c 'umount -l /proc; exec GTASK'"
    serves(shell(place, line), "max_rss_mb has no effect", "cannot accept exclusively")


@needs_root
def test_a_folder_that_cannot_be_written_to(place: Path):
    line = "mkdir run; exec unshare -m bash -c 'mount -t tmpfs -o ro tmpfs run; exec GTASK'"
    fails(shell(place, line), 1, "run/pid: Read-only file system")


@needs_root
def test_process_1(tmp_path: Path):
    """Orphans of strangers become its children, and have to be reaped."""
    place = furnish(tmp_path)
    (place / "some_tasks.py").write_text(
        TASKS
        + """
import subprocess
@task
def orphan():
    subprocess.run(["sh", "-c", "(exec sleep 0.1) & (exec sleep 0.1) &"], check=True)

@task
def zombies():
    states = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/stat") as stat:
            states.append(stat.read().rpartition(")")[2].split()[0])
    return states.count("Z")
"""
    )
    with shell(place, "exec unshare -pf --mount-proc GTASK") as started:
        with started.peer() as peer:
            peer.bare("orphan")
            time.sleep(0.5)
            assert peer.bare("zombies") == 0
        child = Path(f"/proc/{started.process.pid}/task/{started.process.pid}/children")
        os.kill(int(child.read_text()), signal.SIGTERM)
        assert started.process.wait(10 * SLOWNESS) == 0
    fails(
        shell(place, "exec unshare -pf --mount-proc GTASK -d"),
        1,
        "a container ends with its process 1",
    )
