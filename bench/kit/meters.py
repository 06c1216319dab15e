"""What a process tree has used: processor time, and memory with shared pages divided."""

from __future__ import annotations

import os
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """The process and all its descendants that live."""
    found = [pid]
    for one in found:
        try:
            for task in Path(f"/proc/{one}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            pass  # it has ended meanwhile
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time, user and system, of the tree and of the children it has reaped."""
    return sum(_cpu(one) for one in tree(pid))


def _cpu(pid: int) -> float:
    """Of one process: the scheduler's count in ns, as proc(5)'s `stat` rounds to 10 ms.

    That count is for each thread that lives; `stat` has those that have ended, too.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system, reaped_user, reaped_system = (int(word) / TICK for word in words[11:15])
        exact = sum(
            int((task / "schedstat").read_text().split()[0])
            for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except (OSError, IndexError):
        return 0.0
    return max(exact / 1e9, user + system - 2 / TICK) + reaped_user + reaped_system


def pss_bytes(pid: int) -> int:
    """Memory of the tree: its own pages, and its share of those it shares."""
    total = 0
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
    return total


def wait_quiet(pid: int, seconds: float = 60.0) -> None:
    """Wait until the tree has come up: until it uses hardly any processor time."""
    deadline, before = time.monotonic() + seconds, cpu_seconds(pid)
    while time.monotonic() < deadline:
        time.sleep(0.3)
        now = cpu_seconds(pid)
        if now - before < 0.01:
            return
        before = now
