"""Durable tasks with real processes: what docs/queue.md promises."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gtask import Queue, QueueFull, StoreUnavailable, TaskError, TaskFailed, UnknownJob, UnknownTask
from gtask.errors import TaskCancelled, TaskTimedOut

from ..support.kills import title
from ..support.spawn import ROOT, descendants, is_alive, kill
from ..support.wait import SLOWNESS, wait_until

TASKS = """
import os, threading, time, gevent
from gtask import Reject, Retry, current_task, task

def note(text):
    fd = os.open("notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, (text + "\\n").encode())
    os.close(fd)

@task
def add(a, b):
    return a + b

@task
def nap(seconds, name=""):
    note(f"{name} {os.getpid()} {time.time()}")
    gevent.sleep(seconds)
    return os.getpid()

@task(blocking=True)
def block(seconds):
    time.sleep(seconds)
    return current_task().id

own = threading.local()

@task
def sign(name):
    before, own.name = getattr(own, "name", None), name
    return before

@task
def fork():
    child = os.fork()
    if not child:
        return "child"
    os.waitpid(child, 0)
    return "parent"

@task(retries=2, retry_delay=0.05)
def fail():
    note("fail")
    raise ValueError("no")

@task(retries=1)
def again():
    if current_task().attempt == 1:
        raise Retry(after=0.1)
    return current_task().attempt

@task(retries=5)
def reject():
    raise Reject("not this one")

@task
def big():
    return "x" * 2_000_000

@task
def who():
    now = current_task()
    return [now.id, now.attempt, now.deliveries, now.enqueued_at, now.is_stopping, now.peer]

@task
def tell():
    for done in range(3):
        current_task().progress(done, 3, "note")
        gevent.sleep(0.4)

@task(timeout=0.3)
def slow():
    gevent.sleep(60)

@task(timeout=0.3)
def deaf():
    while True:
        try:
            gevent.sleep(60)
        except BaseException:
            pass

@task
def stops():
    while not current_task().is_stopping:
        gevent.sleep(0.01)
    note("stopped")
    return "stopped"

@task
def die():
    note("die")
    os._exit(1)

@task
def fork_and_die():
    note("fork")
    if os.fork() == 0:
        time.sleep(20)
        os._exit(0)
    os._exit(1)
"""

INI = """
[gtask]
control = control.sock
stop_timeout = 2
[worker:Tasks]
listen = text://127.0.0.1:0, sqlite:tasks.db
tasks = queue_tasks
count = {count}
concurrency = {concurrency}
"""


class Tree:
    """A tree with a store, and a queue on it."""

    def __init__(self, spawn, count: int = 2, concurrency: int = 20, ini: str = INI) -> None:
        text = ini.format(count=count, concurrency=concurrency)
        self.worker = spawn(text, queue_tasks=TASKS)
        self.folder = self.worker.folder
        self.queue = Queue(f"sqlite://{self.folder}/tasks.db")

    def pids(self, what: str = "worker") -> list[int]:
        prefix = "gtask: store" if what == "store" else "gtask: Tasks"
        return [pid for pid in descendants(self.worker.process.pid) if title(pid, prefix)]

    def notes(self) -> list[str]:
        path = self.folder / "notes"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def tree(spawn):
    made = []

    def start(*args, **options) -> Tree:
        made.append(Tree(spawn, *args, **options))
        return made[-1]

    yield start
    for one in made:
        one.queue.close()
        one.worker.expects_traceback = True  # those of tasks that fail


def final(job, seconds: float = 10.0) -> str:
    with contextlib.suppress(TaskError):
        job.get(timeout=seconds * SLOWNESS)
    return job.state()


def test_what_a_caller_gets(tree):
    queue = tree().queue
    assert queue.put("add", {"a": 1, "b": 2}).get(10) == 3
    with pytest.raises(TaskFailed, match="ValueError: no") as caught:
        queue.put("fail").get(10)
    assert caught.value.data["final"] is True
    assert not caught.value.retryable
    assert queue.put("again").get(10) == 2
    with pytest.raises(TaskFailed, match="not this one"):
        queue.put("reject").get(10)
    with pytest.raises(TaskTimedOut):
        queue.put("slow").get(10)
    job = queue.put("block", [0.1])
    assert job.get(10) == job.id
    assert final(queue.put("add", {"a": 1})) == "dead"
    assert queue.put("big").info()["function"] == "big"
    with pytest.raises(UnknownJob):
        queue.job("nothing").state()


def test_a_task_leaves_nothing_to_the_next(tree):
    queue = tree(count=1).queue
    assert [queue.put("sign", [name]).get(10) for name in "abc"] == [None] * 3


def test_a_child_that_a_task_forks_is_not_the_worker(tree):
    made = tree(count=1)
    before = made.pids()
    assert made.queue.put("fork").get(10) == "parent"
    assert made.queue.put("add", [1, 2]).get(10) == 3
    assert made.pids() == before


def test_threads_of_tasks_are_counted(tree):
    made = tree(count=1)
    peer = made.worker.peer()
    job = made.queue.put("block", [1.5])
    deadline = time.monotonic() + 10 * SLOWNESS
    while not peer.bare("gtask.health")["threads"]["running"]:
        assert time.monotonic() < deadline
    assert job.get(10) == job.id
    assert not peer.bare("gtask.health")["threads"]["running"]


def test_reasons_of_dead(tree):
    queue = tree().queue
    for function, args, reason in (
        ("add", {"a": 1}, "bad_arguments"),
        ("big", [], "bad_result"),
        ("reject", [], "rejected"),
        ("fail", [], "failed"),
        ("slow", [], "timed_out"),
    ):
        job = queue.put(function, args)
        assert final(job) == "dead"
        assert job.info()["reason"] == reason


def test_the_task_knows_itself(tree):
    queue = tree().queue
    before = time.time()
    id, attempt, deliveries, enqueued_at, is_stopping, peer = queue.put("who", id="me").get(10)
    assert (id, attempt, deliveries, is_stopping, peer) == ("me", 1, 1, False, "queue")
    assert before - 0.01 <= enqueued_at <= time.time()


def test_callbacks(tree):
    queue = tree().queue
    results, errors, reports = [], [], []
    queue.put("add", [1, 2], on_result=results.append)
    queue.put("fail", on_error=errors.append)
    job = queue.put("tell", on_progress=lambda *report: reports.append(report))
    job.get(10)
    queue.put("nap", [0.5]).get(10)
    assert results == [3]
    assert [error.code for error in errors] == [1]
    assert reports[-1] == (2, 3, "note")


def test_by_lines_of_json(tree):
    made = tree()
    peer = made.worker.peer()
    put = {
        "function": "gtask.put",
        "args": {"function": "add", "args": [1, 2], "options": {"id": "a"}},
    }
    assert peer.ask(put) == {"id": "a", "state": "ready", "created": True}
    wait = {"function": "gtask.result", "args": {"id": "a", "wait": 10}}
    assert peer.ask(wait) == {"id": "a", "state": "done", "result": 3}
    assert peer.ask(put)["created"] is False
    many = {"function": "gtask.put_many", "args": {"tasks": [put["args"], {"function": 1}]}}
    first, second = peer.ask(many)
    assert first["created"] is False
    assert second["error"]["code"] == -32602
    assert peer.ask({"function": "gtask.state", "args": {"id": "a"}})["function"] == "add"
    assert (
        peer.ask({"function": "gtask.cancel_job", "args": {"id": "a"}})["cancel_requested"] is False
    )
    assert peer.ask({"function": "gtask.counts"})["default"]["done"] == 1
    (state,) = peer.ask({"function": "gtask.health"})["stores"].values()
    assert state == "ok"


def test_without_a_store_there_is_no_put(spawn):
    worker = spawn(
        "[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = queue_tasks\n", queue_tasks=TASKS
    )
    answer = worker.peer().ask({"function": "gtask.put", "args": {"function": "add"}})
    assert answer["error"]["code"] == UnknownTask.code
    assert not list(worker.folder.glob("*.db*"))


def test_through_a_text_service(tree):
    made = tree()
    with Queue(made.worker.url()) as queue:
        assert queue.put("add", [1, 2]).get(10) == 3
        assert queue.counts()["default"]["done_total"] == 1


def test_a_service_with_a_store_alone(tree):
    ini = INI.replace("text://127.0.0.1:0, ", "")
    made = tree(ini=ini)
    assert made.queue.put("add", [1, 2]).get(10) == 3
    assert made.worker.status()["services"][0]["listen"].startswith("sqlite:///")


def test_a_wait_takes_no_turn(tree):
    made = tree(count=1, concurrency=2)
    peers = [made.worker.peer() for _ in range(5)]
    job = made.queue.put("nap", [1.0])
    for peer in peers:
        wait = {"function": "gtask.result", "args": {"id": job.id, "wait": 10}}
        peer.send(json.dumps(wait).encode() + b"\n")
    assert made.worker.peer().ask({"function": "add", "args": [1, 2]}) == 3
    assert [peer.json()["state"] for peer in peers] == ["done"] * 5


def test_a_put_while_no_worker_runs(tmp_path, spawn):
    with Queue(f"sqlite://{tmp_path}/worker0/tasks.db") as queue:
        (tmp_path / "worker0").mkdir()
        job = queue.put("add", [1, 2], id="early")
        assert job.state() == "ready"
        assert queue.counts()["ready"] == 1
        (tmp_path / "worker0" / "tasks.db").rename(tmp_path / "tasks.db")
        for file in (tmp_path / "worker0").iterdir():
            file.unlink()
        (tmp_path / "worker0").rmdir()
        worker = spawn(
            INI.format(count=1, concurrency=5).replace("sqlite:tasks.db", "sqlite:../tasks.db"),
            queue_tasks=TASKS,
        )
    with Queue(f"sqlite://{tmp_path}/tasks.db") as queue:
        assert queue.job("early").get(10) == 3
    assert worker.stop() == 0


def test_cancel_of_a_running_task(tree):
    queue = tree().queue
    job = queue.put("nap", [60])
    wait_until(lambda: job.state() == "running")
    assert job.cancel()
    with pytest.raises(TaskCancelled):
        job.get(10)


def test_a_dead_workers_task_begins_again_in_under_a_second(tree):
    made = tree()
    job = made.queue.put("nap", [1.0, "it"])
    for starts in (1, 2, 3):
        wait_until(lambda n=starts: len(made.notes()) == n)
        killed = time.time()
        kill(int(made.notes()[-1].split()[1]))
        wait_until(lambda n=starts: len(made.notes()) > n, 5)
        assert float(made.notes()[-1].split()[2]) - killed < 1.0 * SLOWNESS
    assert job.get(10) in made.pids()
    assert job.info()["attempt"] == 4


def test_a_forked_child_of_a_dead_worker_holds_nothing_up(tree):
    made = tree(count=3)
    job = made.queue.put("fork_and_die")
    assert final(job, 20) == "dead"
    assert job.info()["reason"] == "worker_lost"
    assert made.notes().count("fork") == 5


def test_one_poisonous_task_among_a_hundred(tree):
    made = tree(count=2, concurrency=60)
    jobs = [made.queue.put("nap", [0.3, f"n{n}"]) for n in range(50)]
    poison = made.queue.put("die")
    jobs += [made.queue.put("nap", [0.3, f"n{n}"]) for n in range(50, 100)]
    assert final(poison, 30) == "dead"
    assert [final(job, 30) for job in jobs] == ["done"] * 100
    assert made.notes().count("die") == 5


def test_the_store_process_is_killed(tree):
    made = tree()
    job = made.queue.put("nap", [1.0])
    wait_until(lambda: job.state() == "running")
    (pid,) = made.pids("store")
    kill(pid)
    began = time.monotonic()
    assert made.queue.put("add", [1, 2]).get(10) == 3
    assert time.monotonic() - began < 2 * SLOWNESS
    job.get(10)
    assert job.info()["deliveries"] == 1
    assert made.pids("store") != [pid]


def test_a_frozen_store_process_is_replaced(tree):
    made = tree()
    (pid,) = made.pids("store")
    os.kill(pid, signal.SIGSTOP)
    job = made.queue.put("add", [1, 2])
    assert job.get(30) == 3
    assert not is_alive(pid)


def test_a_frozen_worker_keeps_its_task(tree):
    made = tree()
    job = made.queue.put("nap", [0.5, "it"])
    wait_until(made.notes)
    pid = int(made.notes()[0].split()[1])
    os.kill(pid, signal.SIGSTOP)
    time.sleep(2)
    assert (job.state(), job.info()["deliveries"]) == ("running", 1)
    os.kill(pid, signal.SIGCONT)
    assert job.get(10) == pid


def test_a_task_that_ignores_its_limit_has_its_process_killed(tree):
    made = tree(count=1)
    job = made.queue.put("deaf")
    assert final(job, 40) == "dead"
    assert job.info()["reason"] == "timed_out"


def test_a_stop_interrupts_at_no_cost(tree):
    made = tree()
    job = made.queue.put("nap", [30, "it"])
    soft = made.queue.put("stops")
    wait_until(lambda: job.state() == soft.state() == "running")
    assert made.worker.stop() in (0, 1)
    assert "stopped" in made.notes()
    assert soft.state() == "done"
    info = job.info()
    assert (info["state"], info["attempt"], info["deliveries"]) == ("ready", 0, 1)


def test_a_reload_keeps_the_store_and_loses_nothing(tree):
    made = tree()
    (pid,) = made.pids("store")
    jobs = [made.queue.put("nap", [0.2]) for _ in range(60)]
    made.worker.send_signal(signal.SIGHUP)
    assert [final(job, 20) for job in jobs] == ["done"] * 60
    assert made.pids("store") == [pid]


def test_a_stop_of_the_whole_group_at_once(tree):
    made = tree()
    jobs = [made.queue.put("nap", [0.3]) for _ in range(10)]
    wait_until(lambda: len(made.notes()) == 10)
    os.killpg(made.worker.process.pid, signal.SIGTERM)  # as systemd does it
    made.worker.process.wait(20)
    assert {job.state() for job in jobs} == {"done"}
    assert not (made.folder / "tasks.db-wal").exists()


def test_two_trees_on_one_file(tree, spawn):
    made = tree()
    path = made.folder / "tasks.db"
    ini = INI.format(count=2, concurrency=20).replace("sqlite:tasks.db", f"sqlite://{path}")
    other = spawn(ini, queue_tasks=TASKS)
    jobs = [made.queue.put("nap", [0.3]) for _ in range(50)]
    ran_by = {job.get(20) for job in jobs}
    mine, theirs = set(made.pids()), set(descendants(other.process.pid))
    assert ran_by & mine
    assert ran_by & theirs
    made.worker.stop()
    assert made.queue.put("add", [1, 2]).get(20) == 3


def test_a_file_that_is_removed_is_told_and_made_anew(tree):
    made = tree()
    path = made.folder / "tasks.db"
    made.queue.put("add", [1, 2]).get(10)
    path.unlink()
    code = (
        "from gtask import Queue, StoreUnavailable\n"
        f"q = Queue('sqlite://{path}', put_timeout=5)\n"
        "print(q.put('add', [1, 2]).get(10))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "3\n", done.stderr
    assert "another file has its name" in made.worker.text


def test_a_store_of_another_version_is_an_error_with_a_reason(tree, spawn):
    made = tree()
    made.worker.stop()
    with sqlite3.connect(made.folder / "tasks.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreUnavailable) as caught:
        made.queue.put("add", [1, 2])
    assert caught.value.data["reason"] == "version"
    ini = INI.format(count=1, concurrency=5)
    other = spawn(
        ini.replace("sqlite:tasks.db", f"sqlite://{made.folder}/tasks.db"), queue_tasks=TASKS
    )
    answer = other.peer().ask(
        {"function": "gtask.put", "args": {"function": "add", "args": [1, 2]}}
    )
    assert answer["error"]["data"] == {"reason": "version", "accepted": "no"}
    assert other.peer().ask({"function": "add", "args": [1, 2]}) == 3
    assert other.text.count("schema version 9") == 1


def test_status_shows_the_stores(tree):
    made = tree()
    made.queue.put("add", [1, 2]).get(10)

    def told():
        (store,) = json.loads(made.worker.command("status", "--json").stdout)["stores"]
        return store if store["done_total"] else None

    store = wait_until(told)
    assert (store["state"], store["done_total"], store["workers"]) == ("ok", 1, 2)
    assert "1 done" in made.worker.command("status").stdout


def test_sections_that_disagree_are_refused(tmp_path: Path):
    text = INI.format(count=1, concurrency=1)
    text += "[worker:Other]\nlisten = sqlite:tasks.db\ntasks = other_tasks\n"
    (tmp_path / "worker.ini").write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "gtask", "-c", "worker.ini", "check"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 78
    assert "tasks: are others than those of Tasks" in done.stderr


def test_queue_full_is_retryable():
    assert QueueFull("m").retryable
