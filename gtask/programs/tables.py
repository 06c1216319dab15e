"""What `status` and `connections` print for people."""

from __future__ import annotations

from typing import Any

STUCK_SECONDS = 2.0

PROCESS_COLUMNS = (
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
        processes = service["processes"]
        lines += [
            "",
            f"{service['name']}  {service['listen']}  {len(processes)} of {service['count']}",
        ]
        rows = [_process(process, status["generation"]) for process in processes]
        total = ["", "", "all", *_figures(service), "", ""]
        lines += _table(PROCESS_COLUMNS, [*rows, total])
        if service["restarts"]:
            counts = (f"{count} × {reason}" for reason, count in service["restarts"].items())
            lines.append(f"restarts: {'; '.join(counts)}")
    return "\n".join(lines)


def _process(process: dict[str, Any], generation: int) -> list[str]:
    state = process["state"]
    if state != "booting" and process["silent_seconds"] > STUCK_SECONDS:
        state = f"stuck {_duration(process['silent_seconds'])}"
    elif process["function"] and state == "ready":
        state = "busy"
    if process["generation"] != generation:
        state += " (old)"
    busy = (
        f"{process['function']} {_duration(process['busy_seconds'])}" if process["function"] else ""
    )
    return [
        str(process["pid"]),
        str(process["id"]),
        state,
        *_figures(process),
        _duration(process["uptime_seconds"]),
        busy,
    ]


def _figures(of: dict[str, Any]) -> list[str]:
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


def _table(columns: Any, rows: list[list[str]]) -> list[str]:
    table = [[name for name, _ in columns], *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    return [
        "  ".join(
            f"{text:{align}{width}}"
            for text, (_, align), width in zip(row, columns, widths, strict=True)
        ).rstrip()
        for row in table
    ]


def _duration(seconds: float) -> str:
    """
    >>> [_duration(s) for s in (0.25, 59.9, 61, 7300, 200000)]
    ['0.2s', '59.9s', '1m01s', '2h01m', '2d07h']
    """
    if seconds < 60:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for size, unit, small, short in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // small:02}{short}"
    raise AssertionError("cannot be: it is at least a minute")
