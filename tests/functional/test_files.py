"""Whose files and addresses they are: what is not ours is left alone, what is ours has its owner."""

from __future__ import annotations

import fcntl
import grp
import json
import os
import pwd
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.wait import wait_until

TASKS = """
import os
from gtask import task

with open("imported", "a") as file:
    file.write(f"{os.getuid()} {os.getgid()}\\n")

@task
def who():
    return [os.getuid(), os.getgid()]
"""

INI = """
[gtask]
pid_file = run.pid
control = run.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
"""

NOBODY = pwd.getpwnam("nobody")
DAEMON = pwd.getpwnam("daemon")

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may become somebody else")


def said(worker) -> str:
    """It ends before it has begun, with one line."""
    assert worker.process.wait(20) in (1, 69)
    return worker.text.strip()


@pytest.mark.parametrize("key", ["pid_file", "control"])
@pytest.mark.parametrize("kind", ["link", "file", "folder"])
def test_what_is_at_the_path_and_not_ours_is_left_alone(spawn, tmp_path: Path, key: str, kind: str):
    path, target = tmp_path / "at", tmp_path / "precious"
    target.write_text("precious")
    if kind == "link":
        path.symlink_to(target)
    elif kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    old = "run.pid" if key == "pid_file" else "run.sock"
    worker = spawn(INI.replace(old, str(path)), wait=False, tasks=TASKS)
    line = said(worker)
    assert line.count("\n") == 0
    assert str(path) in line
    assert "xists and is not" in line or "Is a directory" in line
    assert target.read_text() == "precious"
    assert path.is_symlink() or path.is_dir() or path.read_text() == "precious"


def test_at_the_end_only_ones_own_files_are_removed(spawn, tmp_path: Path):
    ini = INI.replace("text://127.0.0.1:0", f"text+unix://{tmp_path}/t.sock")
    for name in ("run.pid", "run.sock"):
        ini = ini.replace(name, str(tmp_path / name))
    files = [tmp_path / name for name in ("run.pid", "run.sock", "t.sock")]
    first = spawn(ini, tasks=TASKS)
    for file in files:
        file.unlink()
    second = spawn(ini, tasks=TASKS)
    assert first.stop() == 0
    assert all(file.exists() for file in files)
    with Peer(str(tmp_path / "t.sock")) as peer:
        assert peer.bare("who") == [os.getuid(), os.getgid()]
    assert second.stop() == 0
    assert not any(file.exists() for file in files)


def test_stop_does_not_end_who_else_holds_the_lock(spawn, tmp_path: Path):
    """A pid file of another program's, by a mistake in the configuration."""
    path = tmp_path / "other.pid"
    worker = spawn(INI, wait=False, tasks=TASKS)
    worker.stop(signal.SIGKILL)
    worker.config.write_text(INI.replace("run.pid", str(path)).replace("control = run.sock", ""))
    locked = os.pipe()
    stranger = os.fork()
    if stranger == 0:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.write(fd, f"{os.getpid()}\n".encode())
        fcntl.lockf(fd, fcntl.LOCK_EX)
        os.write(locked[1], b"x")
        signal.pause()
    os.read(locked[0], 1)
    try:
        assert worker.command("stop").returncode == 3
        done = worker.command("start")
        assert (done.returncode, done.stderr) == (
            1,
            f"gtask-worker: already running as process {stranger}\n",
        )
        assert os.waitpid(stranger, os.WNOHANG) == (0, 0)
        assert path.read_text() == f"{stranger}\n"
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
        for fd in locked:
            os.close(fd)


def test_stop_without_a_control_socket(spawn):
    ini = INI.replace("control = run.sock", "")
    worker = spawn(ini, tasks=TASKS)
    assert worker.command("stop").stdout == "stopped\n"
    assert worker.process.wait(5) == 0
    assert worker.command("stop").returncode == 3


def let_in(worker, mode: int = 0o755) -> None:
    """Let other users reach the folder."""
    for folder in (worker.folder, *worker.folder.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)
    worker.folder.chmod(mode)


def as_user(spawn, ini: str, **modules: str):
    """Start it in a folder that everybody may write to."""
    worker = spawn(INI, tasks=TASKS, **modules)
    worker.stop()
    (worker.folder / "imported").unlink()
    let_in(worker, 0o777)
    worker.config.write_text(ini)
    worker.process = subprocess.Popen(
        [sys.executable, "-m", "gtask", "-c", "worker.ini"],
        cwd=worker.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=worker.log.open("wb"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    worker.wait_ready()
    return worker


@needs_root
def test_with_a_user_nothing_of_the_users_is_imported_as_root(spawn):
    worker = as_user(spawn, INI + "user = nobody\ngroup = daemon\n")
    group = grp.getgrnam("daemon").gr_gid
    with worker.peer() as peer:
        assert peer.bare("who") == [NOBODY.pw_uid, group]
    assert worker.command("check").returncode == 0
    assert worker.command("reload").returncode == 0
    imported = (worker.folder / "imported").read_text().splitlines()
    assert set(imported) == {f"{NOBODY.pw_uid} {group}"}
    assert len(imported) == 3


@needs_root
def test_several_users_have_a_mold_each(spawn):
    ini = (
        INI
        + "user = nobody\n"
        + "[worker:Other]\nlisten = text://127.0.0.1:0\ntasks = other\nuser = daemon\ncount = 2\n"
    )
    other = TASKS.replace('"imported"', '"imported_too"')
    worker = as_user(spawn, ini, other=other)
    for name, user, file in (
        ("Tasks", NOBODY, "imported"),
        ("Other", DAEMON, "imported_too"),
    ):
        with worker.peer(name) as peer:
            assert peer.bare("who") == [user.pw_uid, user.pw_gid]
        imported = (worker.folder / file).read_text()
        assert imported == f"{user.pw_uid} {user.pw_gid}\n"
    done = worker.command("check")
    assert done.returncode == 0
    assert "Other: text://127.0.0.1:0, 2 processes: who" in done.stdout
    victims = [each["pid"] for each in worker.status()["services"][1]["processes"]]
    os.kill(victims[0], signal.SIGKILL)
    wait_until(lambda: len(worker.status()["services"][1]["processes"]) == 2)
    (worker.folder / "other.py").write_text("nonsense(\n")
    done = worker.command("reload")
    assert done.returncode == 1
    assert "cannot import other: SyntaxError" in done.stderr
    (worker.folder / "other.py").write_text(other)
    assert worker.command("reload").returncode == 0
    tree = worker.pids()
    assert worker.stop() == 0
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in tree))


@needs_root
def test_a_unix_socket_belongs_to_the_services_user_and_group(spawn, tmp_path: Path):
    path = tmp_path / "t.sock"
    ini = INI.replace("text://127.0.0.1:0", f"text+unix://{path}")
    worker = as_user(spawn, ini + "user = nobody\ngroup = daemon\n")
    status = path.stat()
    assert (status.st_uid, status.st_gid) == (NOBODY.pw_uid, grp.getgrnam("daemon").gr_gid)
    assert status.st_mode & 0o777 == 0o660
    worker.process.kill()
    worker.process.wait()
    assert path.exists()
    again = as_user(spawn, ini + "user = nobody\ngroup = daemon\n")
    assert again.stop() == 0
    assert not path.exists()


@needs_root
def test_a_certificates_key_that_root_alone_may_read_is_read_by_root(spawn, tmp_path: Path):
    file = tmp_path / "both.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
        f"-subj /CN=localhost -keyout {file}.key -out {file}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    Path(f"{file}.key").chmod(0o600)
    worker = as_user(spawn, INI + f"user = nobody\ncertfile = {file}\nkeyfile = {file}.key\n")
    assert worker.command("reload").returncode == 0


def test_any_address_of_ipv6_is_any_address(spawn):
    worker = spawn(INI.replace("127.0.0.1", "[::]"), tasks=TASKS)
    port = worker.address()[1]
    for host in ("127.0.0.1", "::1"):
        with Peer((host, port)) as peer:
            assert peer.bare("who")
            shown = json.loads(worker.command("connections", "--json").stdout)["connections"]
            assert shown[0]["peer"].startswith("127.0.0.1:" if "." in host else "[::1]:")


def test_a_name_with_two_addresses_is_served_on_both(spawn, tmp_path: Path):
    """As `localhost` has where the hosts file says so; here the look-up is told what to find."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import socket\n"
        "find = socket.getaddrinfo\n"
        "def getaddrinfo(host, *args, **named):\n"
        "    hosts = ('127.0.0.1', '::1') if host == 'localhost' else (host,)\n"
        "    return [info for each in hosts for info in find(each, *args, **named)]\n"
        "socket.getaddrinfo = getaddrinfo\n"
    )
    env = {"PYTHONPATH": f"{site}{os.pathsep}{ROOT}"}
    ini = INI.replace("127.0.0.1", "localhost").replace("[worker:Tasks]", "[worker:Tasks]\ncount=2")
    worker = spawn(ini, tasks=TASKS, env=env)
    port = worker.address()[1]
    for host in ("127.0.0.1", "::1") * 5:
        with Peer((host, port)) as peer:
            assert peer.bare("who")
    assert worker.command("reload").returncode == 0
    for host in ("127.0.0.1", "::1") * 5:
        with Peer((host, port)) as peer:
            assert peer.bare("who")
    assert worker.stop() == 0
    for host in ("127.0.0.1", "::1"):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, port), 1)
