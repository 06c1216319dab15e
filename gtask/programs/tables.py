"""What `status` and `connections` print for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..printable import printable

STUCK_SECONDS = 2.0  # since the last heartbeat

Columns = Sequence[tuple[str, str]]  # names, and how they are aligned

PROCESS_COLUMNS: Columns = (
    ("pid", ">"),
    ("id", ">"),
    ("state", "<"),
    ("memory", ">"),
    ("connections", ">"),
    ("running", ">"),
    ("done", ">"),
    ("failed", ">"),
    ("qps", ">"),
    ("up", ">"),
    ("busy with", "<"),
)


def status_table(status: dict[str, Any]) -> str:
    """The answer to `status` as text."""
    lines = [
        f"gtask-worker {status['file']}: {status['state']}, process {status['pid']}, "
        f"up {_duration(status['uptime_seconds'])}, generation {status['generation']}"
    ]
    for service in status["services"]:
        lines += ["", *_service(service, status["generation"])]
    for store in status.get("stores", ()):
        lines += ["", _store(store)]
    return "\n".join(lines)


def _service(service: dict[str, Any], generation: int) -> list[str]:
    processes = service["processes"]
    lines = [f"{service['name']}  {service['listen']}  {len(processes)} of {service['count']}"]
    rows = [_process(process, generation) for process in processes]
    lines += _table(PROCESS_COLUMNS, [*rows, ["", "", "all", *_figures(service), "", ""]])
    if service["restarts"]:
        counts = (f"{count} × {printable(reason)}" for reason, count in service["restarts"].items())
        lines.append(f"restarts: {'; '.join(counts)}")
    return lines


def _store(store: dict[str, Any]) -> str:
    """One line: how a store is, and what it holds."""
    names = ("ready", "delayed", "running", "dead", "done_total", "workers")
    figures = ", ".join(f"{store[name]} {name.replace('_total', '')}" for name in names)
    age = store["oldest_ready"]
    oldest = "" if age is None else f", the oldest ready for {_duration(age)}"
    restarts = f", {store['restarts']} restarts" if store["restarts"] else ""
    return f"{store['url']}  {store['state']}, process {store['pid']}{restarts}: {figures}{oldest}"


def _process(process: dict[str, Any], generation: int) -> list[str]:
    return [
        str(process["pid"]),
        str(process["id"]),
        _state(process) + (" (old)" if process["generation"] != generation else ""),
        *_figures(process),
        _duration(process["uptime_seconds"]),
        _occupation(process),
    ]


def _occupation(process: dict[str, Any]) -> str:
    """What it is busy with, and how many of its native threads can do nothing else any more."""
    function, stuck = process["function"], process.get("stuck_threads")
    parts = [f"{function} {_duration(process['busy_seconds'])}"] if function else []
    if stuck:
        parts.append(f"{stuck} threads stuck")
    return ", ".join(parts)


def _state(process: dict[str, Any]) -> str:
    if process["state"] != "booting" and process["silent_seconds"] > STUCK_SECONDS:
        return f"stuck {_duration(process['silent_seconds'])}"
    if process["function"] and process["state"] == "ready":
        return "busy"
    return str(process["state"])


def _figures(of: dict[str, Any]) -> list[str]:
    """The columns from memory to qps, of a process or of a whole service."""
    counts = [str(of[key]) for key in ("connections", "running", "done", "failed")]
    return [f"{of['memory_mb']:.1f}M", *counts, f"{of['qps']:g}"]


def connections_table(answer: dict[str, Any]) -> str:
    """The answer to `connections` as text."""
    columns: list[str] = []
    for connection in answer["connections"]:
        columns += [key for key in connection if key not in columns]
    rows = [[str(each.get(key, "")) for key in columns] for each in answer["connections"]]
    lines = _table([(name.replace("_", " "), "<") for name in columns], rows) if rows else []
    lines.append(f"{len(rows)} connections")
    for process in answer["silent"]:
        lines.append(
            f"no answer from {process['service']} {process['id']}, process {process['pid']}"
        )
    return "\n".join(lines)


def _table(columns: Columns, rows: list[list[str]]) -> list[str]:
    """Lines in which the columns stand below each other, beginning with their names."""
    table = [[name for name, _ in columns], *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return [
        "  ".join(
            f"{text:{align}{width}}"
            for text, (_, align), width in zip(row, columns, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _duration(seconds: float) -> str:
    """The two largest units, e.g. ``2h01m``."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    return f"{minutes}m{left:02}s"
