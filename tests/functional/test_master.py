"""Start, stop, and what surrounds the services: sockets, pid file, log, daemon, exit codes."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gtask.version import what_runs

from ..support.peer import Peer
from ..support.spawn import ROOT, is_alive
from ..support.wait import wait_until

TASKS = """
import gevent, os
from gtask import task

@task
def add(a, b):
    return a + b

@task
def nap(seconds):
    gevent.sleep(seconds)
    return seconds
"""

INI = """
[gtask]
pid_file = run/worker.pid
control = run/worker.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = 2
"""


def fails(worker, code: int) -> str:
    """It ends with this code; returns what it said, in one line."""
    assert worker.process.wait(20) == code, worker.text
    assert worker.text.count("\n") == 1, worker.text
    return worker.text.strip()


def test_ready_line_tells_the_address(spawn):
    worker = spawn(INI, tasks=TASKS)
    host, port = worker.address()
    assert f"Tasks ready: text://{host}:{port}, 2 workers" in worker.text
    assert f"gtask {what_runs()}: generation 1 serves" in worker.text
    with worker.peer() as peer:
        assert peer.bare("add", 1, 2) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_drain_answers_what_runs_and_refuses_the_rest(spawn, number: int):
    worker = spawn(INI, tasks=TASKS)
    address = worker.address()
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [0.7]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        worker.send_signal(number)
        wait_until(lambda: is_refused(address), 1)
        assert peer.json() == 0.7
        assert peer.is_closed()
    assert worker.process.wait(5) == 0


def is_refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, 1).close()
    except OSError:
        return True
    return False


def test_interrupt_stops_now(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [30]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        started = time.monotonic()
        assert worker.stop(signal.SIGINT) == 0
        assert time.monotonic() - started < 2
        assert peer.is_closed()


def test_asking_twice_skips_the_drain(spawn):
    worker = spawn(INI.replace("stop_timeout = 5", "stop_timeout = 60"), tasks=TASKS)
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [30]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM: draining" in worker.text)
        started = time.monotonic()
        assert worker.stop(signal.SIGTERM) == 0
        assert time.monotonic() - started < 3


def test_connections_in_the_queue_are_served_before_the_end(spawn):
    """Those that the kernel has accepted when TERM comes, and no worker yet."""
    ini = INI.replace("count = 2", "count = 1\nconcurrency = 1")
    worker = spawn(ini, tasks=TASKS)
    with worker.peer() as first, worker.peer() as second:
        first.send(b'{"function": "nap", "args": [0.5]}\n')
        second.send(b'{"function": "add", "args": [1, 2]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        worker.send_signal(signal.SIGTERM)
        assert first.json() == 0.5
        answer = second.json()
        assert answer == 3 or answer["error"]["code"] == -32003


def test_stop_while_starting(spawn):
    worker = spawn(INI, wait=False, tasks=TASKS + "\nimport time\ntime.sleep(20)\n")
    wait_until(lambda: len(worker.pids()) == 1)
    assert worker.stop() == 0


def test_port_in_use_is_one_line_with_the_holder(spawn):
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        worker = spawn(INI.replace(":0", f":{port}"), wait=False, tasks=TASKS)
        said = fails(worker, 69)
    name = Path("/proc/self/comm").read_text().strip()
    assert said == (
        f"gtask-worker: cannot listen on text://127.0.0.1:{port}: "
        f"address already in use by process {os.getpid()} ({name})"
    )


def test_address_of_another_host(spawn):
    worker = spawn(INI.replace("127.0.0.1:0", "192.0.2.1:80"), wait=False, tasks=TASKS)
    assert fails(worker, 69) == (
        "gtask-worker: cannot listen on text://192.0.2.1:80: Cannot assign requested address"
    )


def test_second_start_is_refused(spawn):
    worker = spawn(INI, tasks=TASKS)
    done = worker.command()
    assert done.returncode == 1
    assert done.stderr == f"gtask-worker: already running as process {worker.process.pid}\n"


def test_stale_pid_file_and_socket_are_recognised(spawn):
    worker = spawn(INI, tasks=TASKS)
    worker.process.kill()
    worker.process.wait()
    pid_file = worker.folder / "run/worker.pid"
    assert pid_file.exists()
    pid_file.write_text(f"{os.getpid()}\n")  # even if the number is somebody's now
    assert worker.command("status").returncode == 3
    assert worker.command("stop").returncode == 3
    assert worker.command("start", "-d").returncode == 0
    assert worker.command("stop").returncode == 0
    assert not pid_file.exists()
    assert not (worker.folder / "run/worker.sock").exists()


def test_configuration_errors_come_all_at_once(spawn):
    ini = (
        INI.replace("count = 2", "count = many\nconcurency = 3")
        + "\n[worker:Web]\nlisten = http://x\n"
    )
    worker = spawn(ini, wait=False, tasks=TASKS)
    assert worker.process.wait(10) == 78
    for problem in (
        "worker.ini [worker:Tasks] count:",
        "worker.ini [worker:Tasks] concurency: unknown key, did you mean concurrency?",
        "worker.ini [worker:Web] listen:",
    ):
        assert problem in worker.text
    assert worker.command("check").stderr == worker.text


def test_code_that_does_not_load(spawn):
    worker = spawn(INI, wait=False, tasks=TASKS + "\nnonsense(\n")
    assert worker.process.wait(10) == 78
    assert worker.text.startswith(
        "worker.ini [worker:Tasks] tasks: cannot import tasks: SyntaxError: "
    )
    assert worker.text.count("\n") == 1
    assert "tasks.py, line 14" in worker.text
    done = worker.command("check")
    assert done.returncode == 78
    assert "tasks.py, line 14" in done.stderr


def test_check_says_what_is_served_and_starts_nothing(spawn):
    worker = spawn(INI, wait=False, tasks=TASKS)
    worker.stop(signal.SIGKILL)
    done = worker.command("check")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Tasks: text://127.0.0.1:0, 2 processes: add, nap\n"


def test_code_that_kills_its_process_while_loading(spawn):
    worker = spawn(
        INI, wait=False, tasks="import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    assert worker.process.wait(10) == 1
    assert "the process that loads the code has ended: killed by SIGSEGV" in worker.text


def test_usage(spawn):
    worker = spawn(INI, wait=False, tasks=TASKS)
    assert worker.command("dance").returncode == 2
    assert worker.command("stop", "--what").returncode == 2
    worker.stop(signal.SIGKILL)


def test_daemon_is_ready_when_the_command_ends(spawn):
    worker = spawn(
        INI.replace("[gtask]", "[gtask]\nlog_file = logs/worker.log"), tasks=TASKS, wait=False
    )
    worker.stop(signal.SIGKILL)
    done = worker.command("start", "-d")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid_file = worker.folder / "run/worker.pid"
    pid = int(pid_file.read_text())
    assert stat.S_IMODE(pid_file.stat().st_mode) == 0o644
    assert stat.S_IMODE((worker.folder / "run/worker.sock").stat().st_mode) == 0o600
    try:
        assert os.getsid(pid) != pid, "it can never get a terminal"
        for fd in (0, 1, 2):
            assert os.readlink(f"/proc/{pid}/fd/{fd}") in (
                "/dev/null",
                str(worker.folder / "logs/worker.log"),
            )
        log = (worker.folder / "logs/worker.log").read_text()
        port = int(log.partition("ready: text://127.0.0.1:")[2].partition(",")[0])
        with Peer(("127.0.0.1", port)) as peer:
            assert peer.bare("add", 1, 2) == 3
    finally:
        assert worker.command("stop").returncode == 0
    assert not is_alive(pid)


@pytest.mark.parametrize("what", ["port", "code", "config", "log"])
def test_daemon_that_cannot_start_says_so_at_the_terminal(spawn, what: str):
    worker = spawn(INI, tasks=TASKS, wait=False)
    worker.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.process.pid))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        if what == "port":
            worker.config.write_text(INI.replace(":0", f":{holder.getsockname()[1]}"))
        if what == "code":
            (worker.folder / "tasks.py").write_text("import nothing_like_it\n")
        if what == "config":
            worker.config.write_text(INI + "cont = 3\n")
        if what == "log":
            worker.config.write_text(INI.replace("[gtask]", "[gtask]\nlog_file = tasks.py/x"))
        done = worker.command("start", "-d")
    assert done.returncode == {"port": 69, "code": 78, "config": 78, "log": 78}[what], done.stderr
    expected = {
        "port": "already in use",
        "code": "nothing_like_it",
        "config": "cont",
        "log": "log_file",
    }
    assert expected[what] in done.stderr
    assert done.stderr.count("\n") == 1


def test_restart_of_a_daemon_is_a_daemon(spawn):
    worker = spawn(INI, tasks=TASKS, wait=False)
    worker.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.process.pid))
    assert worker.command("start", "-d").returncode == 0
    first = worker.status()["pid"]
    assert worker.command("restart").returncode == 0
    second = worker.status()["pid"]
    assert worker.command("stop").returncode == 0
    assert first != second


def test_unix_socket_has_its_mode_and_goes_with_the_service(spawn, tmp_path: Path):
    path = tmp_path / "t.sock"
    ini = INI.replace("text://127.0.0.1:0", f"text+unix://{path}\nsocket_mode = 640")
    worker = spawn(ini, tasks=TASKS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with Peer(str(path)) as peer:
        assert peer.bare("add", 1, 2) == 3
    worker.process.kill()
    worker.process.wait()
    assert path.exists(), "killed: nobody could remove it"
    again = spawn(ini, tasks=TASKS)
    with Peer(str(path)) as peer:
        assert peer.bare("add", 1, 2) == 3
    third = spawn(ini, wait=False, tasks=TASKS)
    assert fails(third, 69).endswith(
        "address already in use by process "
        f"{again.process.pid} ({Path(f'/proc/{again.process.pid}/comm').read_text().strip()})"
    )
    again.stop()
    assert not path.exists()
    path.write_text("precious")
    assert fails(spawn(ini, wait=False, tasks=TASKS), 69).endswith("exists and is not a socket")
    assert path.read_text() == "precious"


def test_ipv6(spawn):
    worker = spawn(INI.replace("127.0.0.1", "[::1]"), tasks=TASKS)
    assert worker.url().startswith("text://[::1]:")
    with worker.peer() as peer:
        assert peer.bare("add", 1, 2) == 3


def test_log_lines_as_json(spawn):
    worker = spawn(INI.replace("[gtask]", "[gtask]\nlog_format = json"), tasks=TASKS)
    worker.stop()
    lines = [json.loads(line) for line in worker.text.splitlines()]
    assert lines[0]["message"].startswith("Tasks ready: text://127.0.0.1:")
    assert lines[0].keys() == {"time", "level", "pid", "logger", "message"}


def test_a_closed_terminal_ends_a_service_that_ran_in_it(spawn):
    worker = spawn(INI, tasks=TASKS, wait=False)
    worker.stop(signal.SIGKILL)
    wait_until(lambda: not is_alive(worker.process.pid))
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(worker.folder)
        os.execve(
            sys.executable,
            [sys.executable, "-m", "gtask", "-c", "worker.ini"],
            {**os.environ, "PYTHONPATH": str(ROOT)},
        )
    said = b""
    while b" ready: " not in said:
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_script_is_its_own_master_even_if_it_has_patched_itself(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from gevent import monkey\nmonkey.patch_all()\n"
        "from gtask import Worker, run_all, task\n"
        "@task\ndef add(a, b):\n    return a + b\n"
        "worker = Worker('text://127.0.0.1:0', tasks=[add], count=2, name='Tasks')\n"
        "run_all(worker, control='run.sock', stop_timeout=5)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        said = process.stderr.readline()
        port = int(said.partition("text://127.0.0.1:")[2].partition(",")[0])
        with Peer(("127.0.0.1", port)) as peer:
            assert peer.bare("add", 1, 2) == 3
        assert ": generation 1 serves" in process.stderr.readline()
        process.send_signal(signal.SIGHUP)
        assert " ready: " in process.stderr.readline()
        with Peer(("127.0.0.1", port)) as peer:
            assert peer.bare("add", 1, 2) == 3
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
