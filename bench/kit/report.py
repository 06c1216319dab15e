"""Writes the figures of a run into a Markdown document, and the plots beside it.

In the document only what stands between BEGIN and END is replaced.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from . import environment, svg
from .table import Row, markdown

BEGIN, END = "<!-- bench/run begins -->\n", "<!-- bench/run ends -->\n"
AXES = {"cpu_us": "CPU µs per task", "p99": "99th percentile, µs"}
OVERVIEW = ("kept", "in-flight", "per-task")


def write(document: Path, bench: Any, chosen: list[Any]) -> None:
    """Replace the figures in `document`, and write its plots into `img` beside it."""
    images = document.parent / "img"
    images.mkdir(exist_ok=True)
    parts = [f"\n{environment.describe()}\n- {bench.rounds} rounds of {bench.seconds:g} s\n"]
    if overview := _overview(bench.rows):
        parts.append(_image(images, "bench-overview", "CPU time per task", overview))
    for one in chosen:
        rows = [row for row in bench.rows if row.pattern == one.name]
        if not rows:
            continue
        parts.append(f"\n### {one.name}\n\n{one.text}\n")
        parts += [
            f"\n{text[0].upper()}{text[1:]}.\n" for name, text in bench.notes if name == one.name
        ]
        if plot := one.plot and _lines(one, rows):
            parts.append(_image(images, f"bench-{one.name}", one.text, plot))
        parts.append("\n" + markdown(rows, one.targets))
    text = document.read_text() if document.exists() else f"# Performance\n\n{BEGIN}{END}"
    body = BEGIN + "".join(parts) + "\n" + END
    document.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: body, text, flags=re.S))


def _overview(rows: list[Row]) -> str:
    groups: dict[str, dict[str, float]] = {}
    for row in rows:
        if row.pattern in OVERVIEW:
            groups.setdefault(row.pattern, {})[row.server] = row.median("cpu_us") or 0.0
    return svg.bars("CPU time per task, 50 connections", "µs", groups) if groups else ""


def _lines(pattern: Any, rows: list[Row]) -> str:
    series: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        x, y = float(row.case), row.median(pattern.plot)
        if y:
            series.setdefault(row.server, []).append((x, y))
    return svg.lines(pattern.title, pattern.axis, AXES[pattern.plot], series)


def _image(folder: Path, name: str, alt: str, content: str) -> str:
    (folder / f"{name}.svg").write_text(content)
    return f"\n![{alt}](img/{name}.svg)\n"
