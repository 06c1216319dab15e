"""What a task may cost, counted instead of timed: a slow machine gives the same counts.

Counted are calls, of Python functions and of C functions from Python, in a real worker process
under fixed workloads; those of a socket's methods are its system calls. Whoever makes a task
cheaper lowers the budget; whoever must raise it says why in the commit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ..support.spawn import SpawnedWorker

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
count = {count}
tasks = tasks
"""

# Set before the worker makes its hub: greenlets made later are counted, too.
TASKS = """
import sys
from collections import Counter
from gtask import task

SYSTEM_CALLS = {"recv", "send", "_accept", "accept", "close", "shutdown", "setsockopt"}
counts = Counter()

def count(frame, event, function):
    if event == "call":
        counts["calls"] += 1
    elif event == "c_call":
        counts["calls"] += 1
        if function.__name__ in SYSTEM_CALLS and "socket" in type(function.__self__).__name__:
            counts[function.__name__] += 1

sys.setprofile(count)

@task
def echo(text):
    return text

@task
def counted():
    return dict(counts)
"""

TEXT = "2026-11-24 a@example.org " * 2
TASK = {"function": "echo", "args": {"text": TEXT}}
CALL = {"jsonrpc": "2.0", "method": "echo", "params": {"text": TEXT}, "id": 1}
TASKS_PER_RUN = 160


def kept(worker: SpawnedWorker) -> None:
    """One after the other on one connection."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN):
            assert peer.ask(TASK) == TEXT


def in_flight(worker: SpawnedWorker) -> None:
    """16 in one packet."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN // 16):
            peer.send((json.dumps(TASK).encode() + b"\n") * 16)
            assert {peer.line() for _ in range(16)} == {json.dumps(TEXT).encode()}


def json_rpc(worker: SpawnedWorker) -> None:
    """16 JSON-RPC calls in one packet."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN // 16):
            peer.send((json.dumps(CALL).encode() + b"\n") * 16)
            assert {peer.json()["result"] for _ in range(16)} == {TEXT}


def per_task(worker: SpawnedWorker) -> None:
    """A connection for each."""
    for _ in range(TASKS_PER_RUN):
        with worker.peer() as peer:
            assert peer.ask(TASK) == TEXT


@pytest.fixture(scope="module")
def worker(module_spawn: Callable[..., SpawnedWorker]) -> SpawnedWorker:
    return module_spawn(INI.format(count=1), tasks=TASKS)


# What one task took when this was written, on Python 3.11 to 3.13 alike.
BUDGETS: list[tuple[Callable[[SpawnedWorker], None], dict[str, float]]] = [
    (kept, {"calls": 46.5, "recv": 1, "send": 1}),
    (in_flight, {"calls": 22.2, "recv": 1 / 16, "send": 1 / 16}),
    (json_rpc, {"calls": 24.2, "recv": 1 / 16, "send": 1 / 16}),
    (per_task, {"calls": 76.3, "_accept": 1, "recv": 2, "send": 1, "close": 1}),
]
SLACK = 0.5  # calls a task: what else a worker does meanwhile, such as its heartbeat


@pytest.mark.parametrize(("workload", "budget"), BUDGETS)
def test_a_task_stays_within_its_budget(
    worker: SpawnedWorker, workload: Callable[[SpawnedWorker], None], budget: dict[str, float]
) -> None:
    workload(worker)  # once, for what is made but once
    with worker.peer() as asking:
        before = asking.bare("counted")
        workload(worker)
        used = {name: n - before.get(name, 0) for name, n in asking.bare("counted").items()}
    assert used["recv"] > 0, "nothing was counted"
    a_task = {name: n / TASKS_PER_RUN for name, n in used.items()}
    allowed = {name: budget.get(name, 0) + (SLACK if name == "calls" else 0.05) for name in a_task}
    over = {name: (n, allowed[name]) for name, n in a_task.items() if n > allowed[name]}
    assert not over, f"(used, allowed) a task: {over}"


@pytest.mark.parametrize("count", [2, 16])
def test_a_connection_wakes_no_herd(module_spawn: Callable[..., SpawnedWorker], count: int) -> None:
    herd = module_spawn(INI.format(count=count), tasks=TASKS)
    per_task(herd)
    before = switches(herd)
    per_task(herd)
    woken = (switches(herd) - before) / TASKS_PER_RUN
    # One wake-up to accept and one to see the peer's end; some find that a sibling was faster.
    assert woken < 3.5, f"{woken:.1f} processes are woken for each connection"


def switches(worker: SpawnedWorker) -> int:
    """How often the processes of the tree have gone to sleep."""
    total = 0
    for pid in worker.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return total
