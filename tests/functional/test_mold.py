"""What workers get from the mold they are forked from, and what each has of its own."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from gtask.compiled import is_compiled

from ..support.peer import Peer
from ..support.spawn import ROOT

INI = """
[gtask]
control = control.sock
[worker:Tasks]
listen = text://127.0.0.1:0
count = 4
tasks = own
"""

OWN = """
import os
from gtask import task
{more}

@task
def own():
    return [os.getpid(), {what}]
"""

HOOKS = """
told = []
os.register_at_fork(before=lambda: told.append("before"), after_in_child=lambda: told.append(os.getpid()))
"""

THREAD = """
from gevent import monkey
import threading
wait = monkey.get_original("threading", "Event")
start = monkey.get_original("_thread", "start_new_thread")
start(monkey.get_original("time", "sleep"), (1000,))
"""

HUB = """
import gevent
ticks = []
def tick():
    while True:
        ticks.append(os.getpid())
        gevent.sleep(0.01)
gevent.spawn(tick)
gevent.sleep(0.02)  # so it has run in the mold
"""


def ask_all(spawn, what: str, more: str = "") -> dict:
    """What each of the four workers answers, by its process id."""
    worker = spawn(INI, own=OWN.format(what=what, more=more))
    with ExitStack() as stack:  # connections that are kept are spread over the workers
        peers = [stack.enter_context(worker.peer()) for _ in range(40)]
        told = dict(peer.bare("own") for peer in peers)
    assert len(told) == 4
    return told


def test_workers_draw_different_random_numbers(spawn):
    told = ask_all(spawn, "[random.random(), secrets.token_hex(8)]", "import random, secrets")
    assert len({drawn for drawn, _ in told.values()}) == 4
    assert len({token for _, token in told.values()}) == 4


def test_hooks_that_a_module_registered_run_around_each_fork(spawn):
    for pid, told in ask_all(spawn, "told", HOOKS).items():
        assert told[-1] == pid
        assert told[0] == "before"


def test_hooks_that_a_script_registered_run_too(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os\nfrom gtask import Worker, run_all, task\n"
        "told = []\nos.register_at_fork(after_in_child=lambda: told.append(os.getpid()))\n"
        "@task\ndef own():\n    return [os.getpid(), told]\n"
        "run_all(Worker('text://127.0.0.1:0', tasks=[own], count=2))\n"
    )
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            ready = re.search(r"text://127.0.0.1:(\d+)", process.stderr.readline())
            with Peer(("127.0.0.1", int(ready[1]))) as peer:
                pid, told = peer.bare("own")
            assert told[-1] == pid
        finally:
            process.terminate()


def test_a_module_may_have_started_a_thread(spawn):
    ask_all(spawn, "[]", THREAD)


def test_greenlets_of_a_module_run_in_each_worker(spawn):
    for pid, ticks in ask_all(spawn, "ticks[-1]", HUB).items():
        assert ticks == pid


def test_a_worker_that_has_worked_shares_most_of_its_memory(spawn):
    """Measured: 2.5 MB of its own, and 3.3 MB before there was a rehearsal and a short fork.

    From sources it is 3.0 MB.
    """
    worker = spawn(INI, own=OWN.format(what="1", more=""))
    for _ in range(10):
        with ExitStack() as stack:
            peers = [stack.enter_context(worker.peer()) for _ in range(12)]
            for peer in peers:
                peer.bare("own")
    own = [private_kb(process["pid"]) for process in worker.status()["services"][0]["processes"]]
    assert len(own) == 4
    assert statistics.median(own) < (2700 if is_compiled() else 3300), own


def private_kb(pid: int) -> int:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"(?m)^Private_Dirty: +(\d+)", rollup)[1])
