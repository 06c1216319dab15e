"""systemd: the units as shipped, notification, watchdog and socket activation, with the real one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.systemd import Machine, shipped_unit
from ..support.wait import wait_until

UNITS = ("gtask-worker.service", "gtask-worker@.service", "gtask-worker.socket")

TASKS = """
import os
from gtask import task

@task
def version():
    return 1

@task
def spin():
    while True:
        pass
"""

INI = """
[gtask]
pid_file = /run/gtask/worker.pid
control = /run/gtask/worker.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:{port}
tasks = tasks
count = 2
"""


# The services' own settings are made for a machine of their own: nothing here may rely on, or
# write to, the host's /tmp, /run and /var (tests/support/systemd.py).


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def ask(port: int, function: str = "version"):
    with Peer(("127.0.0.1", port)) as peer:
        return peer.bare(function)


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Callable[..., Machine]]:
    machines = []

    def start(**units: str) -> Machine:
        names = {name.replace("_", "-").replace("-dot-", "."): text for name, text in units.items()}
        machines.append(Machine(tmp_path, names))
        return machines[-1]

    yield start
    for machine in machines:
        machine.close()


def test_units_are_valid_and_hardened(tmp_path: Path):
    for name in UNITS:
        text = (ROOT / "conf/systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/opt/gtask/bin/gtask-worker", "/bin/true"))
    files = [str(tmp_path / name.replace("@", "@mail")) for name in UNITS]
    verify = subprocess.run(["systemd-analyze", "verify", *files], capture_output=True, text=True)
    assert (verify.returncode, verify.stderr) == (0, "")
    for name in UNITS[:2]:
        done = subprocess.run(
            [
                "systemd-analyze",
                "security",
                "--offline=true",
                "--threshold=20",
                str(tmp_path / name),
            ],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        assert "OK" in done.stdout.splitlines()[-1]


def test_life_under_systemctl(boot, tmp_path: Path):
    port = free_port()
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "worker.ini").write_text(INI.format(port=port))
    machine = boot(gtask_worker_dot_service=shipped_unit("gtask-worker.service", tmp_path))
    started = machine.systemctl("start", "gtask-worker")
    assert started.returncode == 0, machine.log.read_text()
    assert machine.show("gtask-worker", "ActiveState") == "active"
    assert machine.show("gtask-worker", "StatusText") == "2 workers, 0 connections, 0 tasks running"
    assert ask(port) == 1
    master = machine.show("gtask-worker", "MainPID")

    (tmp_path / "tasks.py").write_text(TASKS.replace("return 1", "return 2"))
    assert machine.systemctl("reload", "gtask-worker").returncode == 0
    assert ask(port) == 2
    (tmp_path / "tasks.py").write_text("import nothing_of_that_name\n")
    assert machine.systemctl("reload", "gtask-worker").returncode != 0
    assert machine.show("gtask-worker", "ActiveState") == "active"
    assert machine.show("gtask-worker", "StatusText").startswith("Reload failed: ")
    assert ask(port) == 2
    assert machine.show("gtask-worker", "MainPID") == master

    assert machine.systemctl("stop", "gtask-worker").returncode == 0
    assert machine.show("gtask-worker", "Result") == "success"
    assert machine.show("gtask-worker", "ActiveState") == "inactive"
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_wrong_configuration_is_not_tried_again(boot, tmp_path: Path):
    (tmp_path / "worker.ini").write_text("[worker:Tasks]\nlisten = nonsense\n")
    machine = boot(gtask_worker_dot_service=shipped_unit("gtask-worker.service", tmp_path))
    assert machine.systemctl("start", "gtask-worker").returncode != 0
    assert machine.show("gtask-worker", "ExecMainStatus") == "78"
    assert machine.show("gtask-worker", "ActiveState") == "failed"
    assert machine.show("gtask-worker", "NRestarts") == "0"


def test_the_watchdog_bites_when_all_workers_hang(boot, tmp_path: Path):
    port = free_port()
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "worker.ini").write_text(INI.format(port=port).replace("count = 2", "count = 1"))
    unit = shipped_unit("gtask-worker.service", tmp_path, **{"WatchdogSec=60": "WatchdogSec=3"})
    machine = boot(gtask_worker_dot_service=unit)
    assert machine.systemctl("start", "gtask-worker").returncode == 0
    first = machine.show("gtask-worker", "MainPID")
    time.sleep(4)
    assert machine.show("gtask-worker", "MainPID") == first, "it is fed while they are well"
    with Peer(("127.0.0.1", port)) as peer:
        peer.send(b'{"function": "spin"}\n')
        wait_until(lambda: machine.show("gtask-worker", "NRestarts") == "1", 20)
    wait_until(lambda: machine.show("gtask-worker", "ActiveState") == "active")
    assert ask(port) == 1


def test_socket_activation_keeps_connections_over_a_restart(boot, tmp_path: Path):
    port = free_port()
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "worker.ini").write_text(INI.format(port=port))
    machine = boot(
        gtask_worker_dot_service=shipped_unit("gtask-worker.service", tmp_path),
        gtask_worker_dot_socket=shipped_unit(
            "gtask-worker.socket", tmp_path, **{"127.0.0.1:12345": f"127.0.0.1:{port}"}
        ),
    )
    assert machine.systemctl("start", "gtask-worker.socket").returncode == 0
    assert machine.show("gtask-worker.service", "ActiveState") == "inactive"
    assert ask(port) == 1, "the first connection starts the service"
    # The first worker answers before all are up, which is when systemd is told.
    wait_until(lambda: machine.show("gtask-worker.service", "ActiveState") == "active")
    first = machine.show("gtask-worker.service", "MainPID")
    for _ in range(3):
        assert machine.systemctl("restart", "gtask-worker.service").returncode == 0
        assert ask(port) == 1
    assert machine.show("gtask-worker.service", "MainPID") != first
    assert machine.systemctl("stop", "gtask-worker.service").returncode == 0
    assert ask(port) == 1, "started again by the next connection"


@pytest.mark.parametrize("how", ["address", "name"])
def test_a_passed_socket_is_matched_to_its_service(tmp_path: Path, how: str):
    port = free_port()
    held = socket.socket()  # bound by the test, so that nobody else comes to listen there
    held.bind(("127.0.0.1", 0))
    other = held.getsockname()[1]
    (tmp_path / "tasks.py").write_text(TASKS)
    listen = port if how == "address" else other
    (tmp_path / "worker.ini").write_text(
        f"[worker:Tasks]\nlisten = text://127.0.0.1:{listen}\ntasks = tasks\n"
    )
    activate = subprocess.Popen(
        [
            "systemd-socket-activate",
            f"--listen=127.0.0.1:{port}",
            "--fdname=Tasks" if how == "name" else "--fdname=whatever",
            f"--setenv=PYTHONPATH={ROOT}",
            *(sys.executable, "-m", "gtask", "-c", "worker.ini"),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: is_listening(port))
        assert ask(port) == 1
        if how == "name":
            assert not is_listening(other)
        activate.send_signal(signal.SIGTERM)  # it has become the master by exec
        assert activate.wait(10) == 0
    finally:
        held.close()
        activate.kill()
        activate.wait()


def is_listening(port: int) -> bool:
    table = Path("/proc/net/tcp").read_text()
    return re.search(rf":{port:04X} 00000000:0000 0A ", table) is not None


def test_each_step_is_notified(spawn, tmp_path: Path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        environment = {
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "400000",
        }
        tasks = TASKS + "\n@task\ndef env():\n    return sorted(os.environ)\n"
        worker = spawn(
            INI.format(port=0).replace("/run/gtask", "run"), env=environment, tasks=tasks
        )
        said = [manager.recv(1000).decode()]
        with worker.peer() as peer:
            names = peer.bare("env")
        assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(names), "it is not for the children"

        def until(text: str) -> str:
            while text not in said[-1]:
                said.append(manager.recv(1000).decode())
            return said[-1]

        assert f"MAINPID={worker.process.pid}" in until("READY=1")
        for _ in range(3):
            said.append("")
            until("WATCHDOG=1")
        worker.send_signal(signal.SIGHUP)
        stamp = until("RELOADING=1").partition("MONOTONIC_USEC=")[2].split()[0]
        assert abs(int(stamp) / 1e6 - time.monotonic()) < 5
        until("READY=1")
        worker.stop()
        until("STOPPING=1")
