"""Histories: tasks are put while processes of the tree are killed, by a seed; then every task is accounted for."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from .spawn import ROOT, SpawnedWorker, descendants, is_alive, kill

TASKS = """
import os, time, gevent
from gtask import task

def note(id, what):
    fd = os.open("ran", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{id} {what} {os.getpid()}\\n".encode())
    os.close(fd)

@task
def work(id, seconds):
    note(id, "began")
    gevent.sleep(seconds)
    note(id, "ended")
    return id

@task(retries=2, retry_delay=0.05)
def fail(id):
    note(id, "failed")
    raise ValueError(id)
"""

INI = """
[gtask]
stop_timeout = 5
[worker:Mail]
listen = text://127.0.0.1:0, sqlite:mail.db
tasks = queue_tasks
count = 3
concurrency = 20
"""

PRODUCER = """
import random, sys
from gtask import Queue
seed, number = int(sys.argv[1]), int(sys.argv[2])
random.seed(seed)
queue = Queue("sqlite:mail.db", put_timeout=60)
for n in range(number):
    if n % 10 == 9:
        job = queue.put("fail", [f"t{n}"], id=f"t{n}")
    else:
        job = queue.put("work", [f"t{n}", random.random() * 0.05], id=f"t{n}")
    print(job.id, flush=True)
"""


class History:
    """A tree, a program that puts, and somebody who kills.

    Attributes:
        accepted: the ids whose put has returned.
        kills: how many of which kind were killed.
    """

    def __init__(self, folder: Path, seed: int, tasks: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.kills: Counter[str] = Counter()
        (folder / "queue_tasks.py").write_text(TASKS)
        (folder / "producer.py").write_text(PRODUCER)
        self.tasks = tasks
        self.seed = seed
        self.worker = SpawnedWorker(folder, INI)

    def run(self, kills: int, seconds: float = 0.3) -> None:
        """Put all tasks, and kill so often meanwhile."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with (self.folder / "accepted").open("wb") as accepted:
            producer = subprocess.Popen(
                [sys.executable, "producer.py", str(self.seed), str(self.tasks)],
                cwd=self.folder,
                stdout=accepted,
                env=environment,
            )
            try:
                for _ in range(kills):
                    time.sleep(self.random.random() * 2 * seconds)
                    self._kill_one()
                assert producer.wait(120) == 0
            finally:
                producer.kill()
                producer.wait()

    def _kill_one(self) -> None:
        what = self.random.choices(("worker", "store", "master"), (6, 3, 1))[0]
        if what == "master":
            self._kill_master()
        else:
            prefix = "gtask: store" if what == "store" else "gtask: Mail"
            pids = [pid for pid in descendants(self.worker.process.pid) if title(pid, prefix)]
            if not pids:
                return
            kill(self.random.choice(pids))
        self.kills[what] += 1

    def _kill_master(self) -> None:
        tree = descendants(self.worker.process.pid)
        self.worker.process.kill()
        self.worker.process.wait()
        deadline = time.monotonic() + 10
        while any(map(is_alive, tree)) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.worker = SpawnedWorker(self.folder, INI)

    @property
    def accepted(self) -> list[str]:
        return (self.folder / "accepted").read_text().split()

    def states(self) -> dict[str, str]:
        """The state of each task in the store, read beside its process."""
        connection = sqlite3.connect(f"file:{self.folder}/mail.db?mode=ro", uri=True)
        try:
            names = ("delayed", "ready", "running", "done", "dead", "cancelled", "expired")
            rows = connection.execute("SELECT id, state FROM task").fetchall()
            return {id: names[state] for id, state in rows}
        finally:
            connection.close()

    def runs(self) -> dict[str, Counter[str]]:
        """How often each task has begun, ended and failed."""
        found: dict[str, Counter[str]] = {}
        for line in (self.folder / "ran").read_text().splitlines():
            id, what, _ = line.split()
            found.setdefault(id, Counter())[what] += 1
        return found


def title(pid: int, prefix: str) -> bool:
    """Whether the process has a title that begins so."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return False
    return text.startswith(prefix)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
