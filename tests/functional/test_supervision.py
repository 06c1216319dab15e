"""What the master does about workers that die, hang, grow old, or never start."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT, descendants, is_alive
from ..support.wait import wait_until

TASKS = """
import os, time
import gevent
from gtask import task

@task
def pid():
    return os.getpid()

@task
def nap(seconds):
    gevent.sleep(seconds)
    return os.getpid()

@task
def spin():
    while True:
        pass

@task
def in_c():
    return pow(3, 10**9)

@task
def swallow():
    while True:
        try:
            gevent.sleep(0.01)
        except BaseException:
            pass

@task
def leave(code):
    os._exit(code)

@task
def grow(megabytes):
    globals()["hoard"] = bytearray(megabytes << 20)
    return os.getpid()
"""

INI = """
[gtask]
pid_file = run/worker.pid
control = run/worker.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = 3
"""


def workers(worker) -> dict[int, int]:
    """Process ids of the ready workers by worker id."""
    processes = worker.status()["services"][0]["processes"]
    return {each["id"]: each["pid"] for each in processes if each["state"] == "ready"}


def call(worker, function: str, *args):
    with worker.peer() as peer:
        return peer.bare(function, *args)


def peer_elsewhere(worker, pid: int) -> Peer:
    """A connection to another worker process than this."""
    while True:
        peer = worker.peer()
        if peer.bare("pid") != pid:
            return peer
        peer.socket.close()


def test_a_killed_worker_is_replaced_with_its_id(spawn):
    worker = spawn(INI, tasks=TASKS)
    before = workers(worker)
    time.sleep(1.1)  # older than a process that dies young
    os.kill(before[1], signal.SIGKILL)
    after = wait_until(lambda: (now := workers(worker)).get(1, before[1]) != before[1] and now)
    assert {0: after[0], 2: after[2]} == {0: before[0], 2: before[2]}
    assert "killed by SIGKILL, perhaps out of memory" in worker.text
    restarts = worker.status()["services"][0]["restarts"]
    assert restarts == {"killed by SIGKILL, perhaps out of memory": 1}


def test_kill_of_all_workers_serving_again_within_a_second(spawn):
    worker = spawn(INI, tasks=TASKS)
    before = set(workers(worker).values())
    time.sleep(1.1)
    killed = time.monotonic()
    for pid in before:
        os.kill(pid, signal.SIGKILL)

    def answers() -> int:
        try:
            return call(worker, "pid")
        except OSError:  # accepted by a worker as it was killed
            return 0
        except EOFError:
            return 0

    assert wait_until(answers) not in before
    assert time.monotonic() - killed < 1


def test_exit_of_a_task_is_told_in_words(spawn):
    worker = spawn(INI, tasks=TASKS)
    with worker.peer() as peer, pytest.raises((EOFError, ConnectionError)):
        peer.bare("leave", 7)
    wait_until(lambda: "has ended: exit 7" in worker.text)
    wait_until(lambda: len(workers(worker)) == 3)


def test_killed_master_leaves_nobody_and_frees_the_port(spawn):
    worker = spawn(INI, tasks=TASKS)
    host, port = worker.address()
    tree = worker.pids()
    assert len(tree) == 4, "three workers and their mold"
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in tree), 3)
    ini = INI.replace(":0", f":{port}")
    worker.config.write_text(ini)
    done = worker.command("start", "-d")
    assert done.returncode == 0, done.stderr
    try:
        assert worker.status()["services"][0]["listen"] == f"text://{host}:{port}"
    finally:
        assert worker.command("stop").returncode == 0


def test_killed_master_while_workers_boot_leaves_nobody(spawn):
    slow = TASKS + "\nimport time as t\nt.sleep(0.5)\n"
    worker = spawn(INI.replace("count = 3", "count = 30"), wait=False, tasks=slow)
    wait_until(lambda: len(worker.pids()) > 5)
    tree = worker.pids()
    worker.process.kill()
    worker.process.wait()
    tree |= set(descendants(os.getpid())) - {worker.process.pid}
    wait_until(lambda: not any(is_alive(pid) for pid in tree), 3)


def test_a_dead_mold_is_replaced_and_nobody_notices(spawn):
    worker = spawn(INI, tasks=TASKS)
    (mold,) = worker.pids() - set(workers(worker).values())
    os.kill(mold, signal.SIGKILL)
    wait_until(lambda: worker.status()["generation"] == 2)
    wait_until(lambda: len(workers(worker)) == 3 and worker.status()["state"] == "running")
    assert call(worker, "pid") in workers(worker).values()


@pytest.mark.parametrize("function", ["spin", "in_c"])
def test_a_stuck_worker_is_dumped_and_replaced_while_others_serve(spawn, function: str):
    worker = spawn(INI.replace("[worker:Tasks]", "[worker:Tasks]\nhard_timeout = 2"), tasks=TASKS)
    before = workers(worker)
    with worker.peer() as stuck:
        victim = stuck.bare("pid")
        with peer_elsewhere(worker, victim) as neighbour:
            see_it_killed(worker, function, stuck, neighbour, set(before.values()))
    after = set(workers(worker).values())
    assert set(before.values()) - after == {victim}
    assert "is stuck for 2." in worker.text
    assert f"in {function}" in worker.text, "the stacks"
    assert worker.status()["services"][0]["restarts"] == {"hard_timeout": 1}


def see_it_killed(worker, function: str, stuck: Peer, neighbour: Peer, pids: set[int]) -> None:
    started = time.monotonic()
    stuck.send(b'{"function": "%s"}\n' % function.encode())
    # What connects before it gets the CPU may still be accepted by the same worker.
    wait_until(lambda: worker.status()["services"][0]["running"] == 1)
    answered = 0
    while time.monotonic() - started < 1.5:
        assert call(worker, "pid") in pids
        answered += 1
    assert answered > 10
    with pytest.raises((EOFError, ConnectionError)):
        stuck.line()
    assert 1.9 < time.monotonic() - started < 4.5
    assert neighbour.bare("pid") in pids
    wait_until(lambda: len(workers(worker)) == 3)


def test_the_stacks_go_where_the_log_goes(spawn):
    ini = INI.replace("[gtask]", "[gtask]\nlog_file = log.txt").replace(
        "count = 3", "hard_timeout = 1"
    )
    worker = spawn(ini, wait=False, tasks=TASKS)
    log = worker.folder / "log.txt"
    wait_until(lambda: log.exists() and " ready: " in log.read_text())
    port = int(log.read_text().partition("ready: text://127.0.0.1:")[2].partition(",")[0])
    with Peer(("127.0.0.1", port)) as peer:
        peer.send(b'{"function": "spin"}\n')
        wait_until(lambda: "in spin" in log.read_text())
    assert "in spin" not in worker.text


def test_a_stopped_worker_is_killed(spawn):
    worker = spawn(INI.replace("[worker:Tasks]", "[worker:Tasks]\nhard_timeout = 1"), tasks=TASKS)
    before = workers(worker)
    os.kill(before[0], signal.SIGSTOP)
    wait_until(lambda: workers(worker).get(0, before[0]) != before[0])


def test_stop_while_a_worker_spins_refuses_at_once_and_ends_in_time(spawn):
    worker = spawn(INI.replace("stop_timeout = 5", "stop_timeout = 2"), tasks=TASKS)
    stuck = worker.peer()
    with stuck, peer_elsewhere(worker, stuck.bare("pid")) as napping:
        stuck.send(b'{"function": "spin"}\n')
        napping.send(b'{"function": "nap", "args": [1]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 2)
        address = worker.address()
        started = time.monotonic()
        worker.send_signal(signal.SIGTERM)

        def is_refused() -> bool:
            try:
                socket.create_connection(address, 1).close()
            except OSError:
                return True
            return False

        wait_until(is_refused, 1)
        assert napping.json() > 0, "what runs is answered"
        assert worker.process.wait(10) == 1, "a task was cut off"
        assert 2 <= time.monotonic() - started < 4
    assert "did not finish in time: killed" in worker.text


def test_a_task_that_swallows_everything_does_not_survive_its_limit(spawn):
    ini = INI.replace("[worker:Tasks]", "[worker:Tasks]\ntask_timeout = 0.3")
    worker = spawn(ini, tasks=TASKS)
    before = set(workers(worker).values())
    reply = call(worker, "swallow")
    assert reply["error"]["code"] == -32001
    wait_until(lambda: not set(workers(worker).values()) >= before)
    assert any(
        "ignores its time limit" in reason for reason in worker.status()["services"][0]["restarts"]
    )


def test_workers_are_recycled_after_max_tasks_without_losing_one(spawn):
    worker = spawn(INI.replace("[worker:Tasks]", "[worker:Tasks]\nmax_tasks = 50"), tasks=TASKS)
    first = set(workers(worker).values())
    deadline = time.monotonic() + 20
    while set(workers(worker).values()) & first and time.monotonic() < deadline:
        for _ in range(100):
            assert isinstance(call(worker, "pid"), int)
    service = worker.status()["services"][0]
    assert not set(workers(worker).values()) & first
    assert service["restarts"].keys() == {"max_tasks"}
    assert service["done"] >= 200
    assert service["failed"] == 0


def test_workers_are_recycled_when_they_grow(spawn):
    worker = spawn(INI.replace("[worker:Tasks]", "[worker:Tasks]\nmax_rss_mb = 80"), tasks=TASKS)
    grown = call(worker, "grow", 100)
    wait_until(lambda: grown not in workers(worker).values())
    wait_until(lambda: not is_alive(grown))
    assert worker.status()["services"][0]["restarts"] == {"max_rss_mb": 1}


def test_a_worker_that_cannot_boot_ends_the_program_with_the_reason(spawn):
    handler = "def on_worker_start(worker):\n    raise KeyError('MAIL_HOST')\ndef on_message(c, d):\n    pass\n"
    ini = INI.replace("tasks = tasks", "handler = handler")
    worker = spawn(ini, wait=False, handler=handler)
    worker.expects_traceback = True
    assert worker.process.wait(10) == 1
    assert "gtask-worker: Tasks cannot start: KeyError: 'MAIL_HOST'" in worker.text
    assert "handler.py, line 2" in worker.text


def test_a_worker_that_starts_to_crash_is_slowed_down_and_the_rest_serves(spawn, tmp_path: Path):
    flag = tmp_path / "broken"
    handler = f"""
import os
def on_worker_start(worker):
    if worker.id == 1 and os.path.exists({str(flag)!r}):
        os._exit(9)
def on_message(connection, data):
    connection.send(data)
"""
    worker = spawn(INI.replace("tasks = tasks", "handler = handler"), handler=handler)
    flag.touch()
    os.kill(workers(worker)[1], signal.SIGKILL)
    wait_until(lambda: worker.text.count("could not boot: exit 9") >= 4)
    assert "next try in 0.4 s" in worker.text
    with worker.peer() as peer:
        assert peer.ask(b'"still here"') == "still here"
    flag.unlink()
    wait_until(lambda: len(workers(worker)) == 3)


def test_workers_run_as_their_user_and_die_with_the_master_all_the_same(spawn):
    if os.getuid() != 0:
        pytest.fail("needs root to change the user: run the tests as root")
    tasks = TASKS + "\n@task\ndef who():\n    return [os.getuid(), os.getgid(), os.getgroups()]\n"
    ini = INI.replace("[worker:Tasks]", "[worker:Tasks]\nuser = nobody\ngroup = nogroup")
    worker = spawn(INI, tasks=tasks)
    for folder in (worker.folder, *worker.folder.parents):
        if str(folder).startswith("/tmp/"):
            folder.chmod(0o755)  # it is that user who imports the tasks
    worker.config.write_text(ini)
    assert worker.command("reload").returncode == 0
    assert call(worker, "who") == [65534, 65534, [65534]]
    tree = worker.pids()
    worker.process.kill()
    worker.process.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in tree), 3)


def test_a_user_that_may_not_be_taken_ends_the_program(spawn):
    worker = spawn(INI, tasks=TASKS)
    worker.stop()
    worker.config.write_text(INI.replace("[worker:Tasks]", "[worker:Tasks]\nuser = nobody"))
    done = subprocess.run(
        [
            "setpriv",
            "--bounding-set=-setuid,-setgid",
            sys.executable,
            "-m",
            "gtask",
            "-c",
            "worker.ini",
        ],
        cwd=worker.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1, done.stderr
    assert (
        "gtask-worker: Tasks cannot start: ConfigError: cannot become user 'nobody'" in done.stderr
    )


@contextlib.contextmanager
def process_limit() -> Iterator[Callable[[int, str], None]]:
    """A function that puts a process under a limit of so many processes, or "max"."""
    v1 = Path("/sys/fs/cgroup/pids")
    group = (v1 if v1.is_dir() else Path("/sys/fs/cgroup")) / f"gtask-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.fail(f"needs root and a pids cgroup: {error}")

    def limit(pid: int, most: str) -> None:
        (group / "pids.max").write_text(most)
        (group / "cgroup.procs").write_text(str(pid))

    try:
        yield limit
    finally:
        wait_until(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


def test_a_fork_that_fails_is_tried_again(spawn):
    with process_limit() as limit:
        worker = spawn(INI, tasks=TASKS)
        (mold,) = worker.pids() - set(workers(worker).values())
        limit(mold, "1")
        os.kill(workers(worker)[0], signal.SIGKILL)
        wait_until(lambda: worker.text.count("cannot fork: Resource temporarily unavailable") > 2)
        limit(mold, "max")
        wait_until(lambda: len(workers(worker)) == 3)
        worker.stop()


def test_a_full_disk_for_the_log_stops_nothing(spawn):
    worker = spawn(INI.replace("[gtask]", "[gtask]\nlog_file = /dev/full"), wait=False, tasks=TASKS)
    status = wait_until(
        lambda: worker.command("status", "--json").returncode == 0 and worker.status()
    )
    wait_until(lambda: worker.status()["state"] == "running")
    status = worker.status()
    for process in status["services"][0]["processes"]:
        os.kill(process["pid"], signal.SIGKILL)
    wait_until(lambda: len(workers(worker)) == 3)
    assert worker.command("reload").returncode == 0


def test_titles_name_the_roles(spawn):
    worker = spawn(INI, tasks=TASKS)
    (mold,) = worker.pids() - set(workers(worker).values())

    def title(pid: int) -> str:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()

    assert title(worker.process.pid).startswith("gtask: master worker.ini")
    assert title(mold) == "gtask: mold 1"
    assert title(workers(worker)[2]).startswith("gtask: Tasks 2 text://127")
