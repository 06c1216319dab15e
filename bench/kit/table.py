"""The figures of a run, and how they are told: as lines on the terminal and as Markdown."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass
class Row:
    """One server in one case of a pattern; each list holds a figure a round."""

    pattern: str
    case: str
    server: str
    cpu_us: list[float] = field(default_factory=list)
    rate: list[float] = field(default_factory=list)
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    p999: list[float] = field(default_factory=list)
    errors: int = 0

    def add(self, result: object) -> None:
        """Take a round's figures: those of its attributes that have a list here."""
        for name in ("cpu_us", "rate", "p50", "p99", "p999"):
            if hasattr(result, name):
                getattr(self, name).append(getattr(result, name))
        self.errors += getattr(result, "errors", 0)

    def median(self, name: str) -> float | None:
        figures = getattr(self, name)
        return statistics.median(figures) if figures else None

    def ratio(self, other: Row) -> float:
        """Of processor time a task, round by round: the machine's speed drifts between them."""
        pairs = zip(self.cpu_us, other.cpu_us, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


@dataclass(frozen=True)
class Target:
    """`server` in `case` (empty: in each) shall cost at most `factor` times `against`."""

    against: str
    factor: float
    server: str = "gtask"
    case: str = ""

    def fits(self, row: Row) -> bool:
        return self.server == row.server and self.case in ("", row.case)


OURS = ("gtask", "gtask, JSON-RPC", "gtask, TaskClient")  # compared with all in their case
HEADINGS = ("server", "CPU µs/task", "tasks/s", "p50 µs", "p99 µs", "p99.9 µs", "errors", "ratio")


def cells(row: Row, rows: Iterable[Row], targets: Iterable[Target]) -> list[str]:
    """What a row says, a text for each of HEADINGS."""
    told = [
        number(row.median("cpu_us")),
        number(row.median("rate")),
        *(number(row.median(name)) for name in ("p50", "p99", "p999")),
    ]
    return [row.server, *told, str(row.errors), "; ".join(ratios(row, rows, targets))]


def ratios(row: Row, rows: Iterable[Row], targets: Iterable[Target]) -> list[str]:
    """The row's cost as multiples of others', beside the targets for it."""
    told = []
    peers = [peer for peer in rows if peer is not row and peer.case == row.case]
    wanted = [target for target in targets if target.fits(row)]
    for peer in peers:
        limit = next((target.factor for target in wanted if target.against == peer.server), None)
        if limit is not None:
            ratio = row.ratio(peer)
            verdict = "" if ratio <= limit else " MISSED"
            told.append(f"{number(ratio)} × {peer.server} (≤ {limit:g}){verdict}")
        elif row.server in OURS and not _is_of_another_kind(peer.server, row.server):
            told.append(f"{number(row.ratio(peer))} × {peer.server}")
    return told


def _is_of_another_kind(peer: str, server: str) -> bool:
    """Whether it is another checkout's gtask, called in another way."""
    return peer.startswith("gtask of") and peer.partition(", ")[2] != server.partition(", ")[2]


def number(value: float | None) -> str:
    """With three digits that count."""
    if value is None:
        return ""
    if value >= 100:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


class Terminal:
    """Prints rows in columns, a heading before each case."""

    def __init__(self, width: int = 30) -> None:
        self._width = width

    def heading(self, pattern: str, text: str) -> None:
        print(f"\n\033[1m{pattern}\033[0m: {text}" if _is_terminal() else f"\n{pattern}: {text}")

    def case(self, name: str, rows: list[Row], targets: Iterable[Target]) -> None:
        first, *columns = HEADINGS
        print(f"  {name or first:{self._width}}" + "".join(f"{one:>12}" for one in columns[:-1]))
        for row in rows:
            server, *figures, ratio = cells(row, rows, targets)
            print(
                f"  {server:{self._width}}"
                + "".join(f"{one:>12}" for one in figures)
                + f"  {ratio}"
            )
        print(end="", flush=True)


def _is_terminal() -> bool:
    return sys.stdout.isatty()


def markdown(rows: list[Row], targets: Iterable[Target]) -> str:
    """One table for the cases of a pattern; columns without figures are left out."""
    body = [[row.case, *cells(row, rows, targets)] for row in rows]
    used = [n for n, _ in enumerate(body[0]) if any(line[n] for line in body)]
    headings = ("case", *HEADINGS)
    lines = [[headings[n] for n in used], ["---" if n < 2 else "--:" for n in used]]
    lines += [[line[n] for n in used] for line in body]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)
