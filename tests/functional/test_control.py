"""`status`, `connections`, TTIN and TTOU: what an operator sees and does while it runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until

TASKS = """
import gevent, os
from gtask import task

@task
def pid():
    return os.getpid()

@task
def nap(seconds):
    gevent.sleep(seconds)

@task
def spin():
    while True:
        pass

@task
def fail():
    raise ValueError("no")
"""

INI = """
[gtask]
control = run.sock
stop_timeout = 1

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = 3

[worker:Other]
listen = text://127.0.0.1:0
tasks = tasks
"""


def test_status_counts_what_was_done(spawn):
    worker = spawn(INI, tasks=TASKS)
    worker.expects_traceback = True
    with worker.peer() as peer:
        for _ in range(10):
            pid = peer.bare("pid")
        peer.bare("fail")
        status = wait_until(lambda: (now := worker.status())["services"][0]["done"] == 11 and now)
        tasks, other = status["services"]
        mine = next(each for each in tasks["processes"] if each["pid"] == pid)
        assert (mine["done"], mine["failed"], mine["connections"]) == (11, 1, 1)
        assert mine["state"] == "ready"
        assert 10 < mine["memory_mb"] < 100
        assert mine["uptime_seconds"] < 20
        assert (tasks["done"], tasks["failed"], tasks["connections"]) == (11, 1, 1)
        assert (other["name"], other["done"], other["count"]) == ("Other", 0, 1)
        assert status["state"] == "running"
        assert status["pid"] == worker.process.pid
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(worker.status()["services"][0]["processes"]) == 3)
    assert worker.status()["services"][0]["done"] == 11, "what the dead had done still counts"


def test_qps(spawn):
    worker = spawn(INI, tasks=TASKS)
    until = time.monotonic() + 2.5
    done = 0
    with worker.peer() as peer:
        while time.monotonic() < until:
            peer.bare("pid")
            done += 1
            time.sleep(0.005)
        assert 0.4 * done / 2.5 < worker.status()["services"][0]["qps"] < 1.6 * done / 2.5


def test_status_is_instant_and_names_the_culprits_when_all_workers_spin(spawn):
    worker = spawn(INI, tasks=TASKS)
    worker.expects_traceback = True
    peers: dict[int, Peer] = {}
    for name, count in (("Tasks", 3), ("Other", 4)):
        while len(peers) < count:
            peer = worker.peer(name)
            if peers.setdefault(peer.bare("pid"), peer) is not peer:
                peer.socket.close()
    for peer in peers.values():
        peer.send(b'{"function": "spin"}\n')
    wait_until(lambda: all(each["running"] for each in worker.status()["services"]))
    time.sleep(1)
    started = time.monotonic()
    text = worker.command("status").stdout
    assert time.monotonic() - started < 0.3 * max(SLOWNESS, 2)
    lines = [line for line in text.splitlines() if "spin " in line]
    assert len(lines) == 4
    services = worker.status()["services"]
    for process in services[0]["processes"] + services[1]["processes"]:
        assert process["function"] == "spin"
        assert process["busy_seconds"] >= 1
        assert process["silent_seconds"] >= 1
    for peer in peers.values():
        peer.socket.close()
    worker.stop()


def test_status_shows_what_waits_longest(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [20]}\n')

        def napping():
            processes = worker.status()["services"][0]["processes"]
            return next((each for each in processes if each["function"] == "nap"), None)

        process = wait_until(napping)
        assert process["running"] == 1
        assert process["busy_seconds"] < 10


def test_the_table_is_for_people(spawn):
    worker = spawn(INI, tasks=TASKS)
    text = worker.command("status").stdout
    head, *_ = text.splitlines()
    assert head.startswith(f"gtask-worker worker.ini: running, process {worker.process.pid}, up ")
    assert f"Tasks  {worker.url()}  3 of 3" in text
    assert "pid  id  state  memory  connections  running  done  failed  qps" in text


def test_watch_shows_it_again_and_again(spawn):
    worker = spawn(INI, tasks=TASKS)
    watching = subprocess.Popen(
        [sys.executable, "-m", "gtask", "-c", "worker.ini", "status", "--watch"],
        cwd=worker.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watching.stdout is not None
    shown = b""
    while shown.count(b"\x1b[H") < 3:
        shown += os.read(watching.stdout.fileno(), 65536)
    worker.stop()
    _, complaint = watching.communicate(timeout=10)
    assert watching.returncode == 3
    assert complaint == b"gtask-worker: worker.ini: not running\n"


def test_connections(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as one, worker.peer() as two, worker.peer("Other") as three:
        pids = {peer.socket.getsockname()[1]: peer.bare("pid") for peer in (one, two, three)}
        done = worker.command("connections", "--json")
        answer = json.loads(done.stdout)
        assert answer["silent"] == []
        found = {
            int(str(each["peer"]).rpartition(":")[2]): each["pid"] for each in answer["connections"]
        }
        assert found == pids
        text = worker.command("connections").stdout
        assert text.splitlines()[-1] == "3 connections"


def test_connections_names_those_that_do_not_answer(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as peer:
        pid = peer.bare("pid")
        peer.send(b'{"function": "spin"}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        started = time.monotonic()
        answer = json.loads(worker.command("connections", "--json").stdout)
        assert 1 <= time.monotonic() - started < 3
        assert [each["pid"] for each in answer["silent"]] == [pid]
        assert f"process {pid}" in worker.command("connections").stdout


def test_one_process_more_or_less(spawn):
    worker = spawn(INI, tasks=TASKS)

    def counts() -> list[int]:
        return [len(each["processes"]) for each in worker.status()["services"]]

    worker.send_signal(signal.SIGTTIN)
    wait_until(lambda: counts() == [4, 1])
    for _ in range(2):
        worker.send_signal(signal.SIGTTOU)
        time.sleep(0.1)  # two pending signals of one kind are one
    wait_until(lambda: counts() == [2, 1])
    assert "'Tasks': 2, 'Other': 1" in worker.text


def test_nonsense_on_the_control_socket_harms_nobody(spawn):
    worker = spawn(INI, tasks=TASKS)
    path = str(worker.folder / "run.sock")
    silent = [socket.socket(socket.AF_UNIX) for _ in range(80)]
    for client in silent:
        client.connect(path)
    for request in (b"\n", b"[]\n", b"{]\n", b"\xff\n", b"x" * 100000 + b"\n", b'{"command": 7}\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            for each in silent:
                each.close()
            client.connect(path)
            try:
                client.sendall(request)
                client.recv(1000)
            except ConnectionError:
                pass
    assert worker.status()["state"] == "running"


def test_nothing_runs(spawn):
    worker = spawn(INI, wait=False, tasks=TASKS)
    worker.stop(signal.SIGKILL)
    for command in ("status", "connections", "reload", "stop"):
        done = worker.command(command)
        assert done.returncode == 3, command
        assert done.stderr == "gtask-worker: worker.ini: not running\n"


def test_a_configuration_broken_meanwhile_still_tells_where_it_listens(spawn):
    worker = spawn(INI, tasks=TASKS)
    worker.config.write_text(INI + "cont = 4\n")
    assert worker.status()["state"] == "running"
    assert worker.command("reload").returncode == 78 or worker.command("reload").returncode == 1
    assert worker.command("stop").returncode == 0
