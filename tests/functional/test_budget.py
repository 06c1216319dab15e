"""What a task may cost, counted instead of timed: a slow machine gives the same counts.

Counted are calls, of Python functions and of C functions from Python, in a real worker process
under fixed workloads; those of a socket's methods are its system calls. strace counts the others,
which no line of Python shows: a greenlet made anew is an mmap and a munmap. Whoever makes a task
cheaper lowers the budget; whoever must raise it says why in the commit.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..support.spawn import SpawnedWorker

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
count = {count}
tasks = tasks
"""

# All is set before the worker makes its hub: greenlets made later are counted, too. gevent's own
# methods are compiled and not seen; so the loop has some in Python.
TASKS = """
import sys
from collections import Counter
from gevent.hub import Hub
from gevent.libev import corecext
from gtask import task

class Watched:
    def start(self, *args, **named):
        super().start(*args, **named)

    def stop(self):
        super().stop()

class Io(Watched, corecext.io):
    pass

class Timer(Watched, corecext.timer):
    pass

class Loop(corecext.loop):
    def io(self, *args, **named):
        return Io(self, *args, **named)

    def timer(self, *args, **named):
        return Timer(self, *args, **named)

    def run_callback(self, *args):
        return super().run_callback(*args)

Hub.loop_class = Loop

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
def note(text, level=1):
    return text

@task
def counted():
    return dict(counts)
"""

TEXT = "2026-11-24 a@example.org " * 2
TASK = {"function": "echo", "args": {"text": TEXT}}
WITH_LIST = {"function": "echo", "args": [TEXT]}
WITH_DEFAULT = {"function": "note", "args": {"text": TEXT}}
CALL = {"jsonrpc": "2.0", "method": "echo", "params": {"text": TEXT}, "id": 1}
TASKS_PER_RUN = 160


def kept(worker: SpawnedWorker) -> None:
    """One after the other on one connection."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN):
            assert peer.ask(TASK) == TEXT


def in_flight(worker: SpawnedWorker, message: object = TASK) -> None:
    """16 in one packet."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN // 16):
            peer.send((json.dumps(message).encode() + b"\n") * 16)
            assert {peer.line() for _ in range(16)} == {json.dumps(TEXT).encode()}


def with_list(worker: SpawnedWorker) -> None:
    """The same, the argument in a list."""
    in_flight(worker, WITH_LIST)


def with_default(worker: SpawnedWorker) -> None:
    """The same, another argument left out."""
    in_flight(worker, WITH_DEFAULT)


def json_rpc(worker: SpawnedWorker) -> None:
    """16 JSON-RPC calls in one packet."""
    with worker.peer() as peer:
        for _ in range(TASKS_PER_RUN // 16):
            peer.send((json.dumps(CALL).encode() + b"\n") * 16)
            assert {peer.json()["result"] for _ in range(16)} == {TEXT}


def per_task(worker: SpawnedWorker) -> None:
    """A connection for each, after the one before has been closed by the worker, too."""
    for _ in range(TASKS_PER_RUN):
        with worker.peer() as peer:
            assert peer.ask(TASK) == TEXT
            peer.socket.shutdown(socket.SHUT_WR)
            assert peer.is_closed()


@pytest.fixture(scope="module")
def worker(module_spawn: Callable[..., SpawnedWorker]) -> SpawnedWorker:
    # From sources: calls within compiled code are not seen.
    return module_spawn(INI.format(count=1), tasks=TASKS, env={"GTASK_PURE": "1"})


# What one task took when this was written, on Python 3.11 to 3.13 alike.
BUDGETS: list[tuple[Callable[[SpawnedWorker], None], dict[str, float]]] = [
    (kept, {"calls": 62.8, "recv": 1, "send": 1}),
    (in_flight, {"calls": 27.6, "recv": 1 / 16, "send": 1 / 16}),
    (with_list, {"calls": 24.6, "recv": 1 / 16, "send": 1 / 16}),
    (with_default, {"calls": 27.6, "recv": 1 / 16, "send": 1 / 16}),
    (json_rpc, {"calls": 29.6, "recv": 1 / 16, "send": 1 / 16}),
    (per_task, {"calls": 121.5, "_accept": 1, "recv": 2, "send": 1, "close": 1}),
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


PLAIN_TASKS = """
import ctypes, os
from gtask import task

@task
def echo(text):
    return text

@task
def traceable():
    ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1))  # PR_SET_PTRACER, by anybody
    return os.getpid()
"""

# The loop's own wait, for which libev asks for the process id, as a fork could have happened; and
# that which tells who can be read.
TURNS = {"epoll_wait": 2, "getpid": 1}
ACCEPT = {"accept4": 1, "getsockname": 1, "fcntl": 1, "epoll_ctl": 1, "close": 1}
SYSTEM_CALLS: list[tuple[Callable[[SpawnedWorker], None], dict[str, float]]] = [
    (kept, {"recvfrom": 1, "sendto": 1, **TURNS}),
    (in_flight, {name: 1 / 16 for name in ("recvfrom", "sendto", *TURNS)}),
    (json_rpc, {name: 1 / 16 for name in ("recvfrom", "sendto", *TURNS)}),
    (per_task, {"recvfrom": 2, "sendto": 1, "epoll_wait": 5, "getpid": 3, **ACCEPT}),
]
SYSTEM_SLACK = 0.15  # of each a task: a connection for all of them, and the heartbeat


@pytest.fixture(scope="module")
def plain_worker(module_spawn: Callable[..., SpawnedWorker]) -> SpawnedWorker:
    return module_spawn(INI.format(count=1), tasks=PLAIN_TASKS)


@pytest.mark.parametrize(("workload", "budget"), SYSTEM_CALLS)
def test_a_task_makes_no_other_system_calls(
    plain_worker: SpawnedWorker,
    tmp_path: Path,
    workload: Callable[[SpawnedWorker], None],
    budget: dict[str, float],
) -> None:
    workload(plain_worker)
    with plain_worker.peer() as peer:
        pid = peer.bare("traceable")
    with traced(pid, tmp_path / "summary") as used:
        workload(plain_worker)
    assert used["sendto"] > 0, "nothing was counted"
    a_task = {name: n / TASKS_PER_RUN for name, n in used.items()}
    allowed = {name: budget.get(name, 0) + SYSTEM_SLACK for name in a_task}
    over = {name: (n, allowed[name]) for name, n in a_task.items() if n > allowed[name]}
    assert not over, f"(used, allowed) a task: {over}"


@contextlib.contextmanager
def traced(pid: int, summary: Path) -> Iterator[Counter[str]]:
    """Counts the system calls of a process, by name; they are there when the block has ended."""
    used: Counter[str] = Counter()
    command = ["strace", "-f", "-c", "-o", str(summary), "-p", str(pid)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        assert strace.stderr is not None
        told = strace.stderr.readline()
        if "attached" not in told:
            strace.kill()
            pytest.skip(f"no process may be traced here: {told.strip()}")
        try:
            yield used
        finally:
            strace.send_signal(signal.SIGINT)  # it detaches, and writes its table
            strace.wait()
    for line in summary.read_text().splitlines():
        words = line.split()  # share, seconds, each, calls, errors if there were any, name
        if len(words) > 4 and words[3].isdigit() and words[-1] != "total":
            used[words[-1]] = int(words[3])


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
