"""What is measured: each pattern is a function whose docstring says what, for table and report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kit import generator, servers
from kit.servers import BENCH, LOAD_CPU, Server, running
from kit.table import Row, Target, Terminal

WORKERMAN, NAIVE = "Workerman", "gevent StreamServer"
SHAPES = ("page", "text", "list", "keys", "nested", "korean")  # bench/c/shapes.h


@dataclass
class Pattern:
    measure: Callable[[Bench], None]
    targets: tuple[Target, ...]
    plot: str | None  # what its plot shows over the cases: one of Row's lists
    axis: str  # what the cases, numbers then, are

    @property
    def name(self) -> str:
        return self.measure.__name__.replace("_", "-")

    @property
    def title(self) -> str:
        return self.name.replace("-", " ").capitalize()

    @property
    def text(self) -> str:
        return " ".join((self.measure.__doc__ or "").split())


PATTERNS: dict[str, Pattern] = {}


def pattern(*targets: Target, plot: str | None = None, axis: str = "") -> Callable[..., Any]:
    def add(measure: Callable[[Bench], None]) -> Callable[[Bench], None]:
        made = Pattern(measure, targets, plot, axis)
        PATTERNS[made.name] = made
        return measure

    return add


@dataclass
class Bench:
    """One run over some patterns.

    Attributes:
        rounds: of each case, interleaved between its servers.
        seconds: of one measurement.
        against: another checkout, whose gtask is measured, too.
    """

    rounds: int
    seconds: float
    against: Path | None = None
    terminal: Terminal = field(default_factory=Terminal)
    rows: list[Row] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    current: Pattern | None = None

    def run(self, one: Pattern) -> None:
        self.current = one
        self.terminal.heading(one.name, one.text)
        one.measure(self)

    def case(self, name: str, measures: dict[str, Callable[[], object]]) -> None:
        """Call each server's measure once a round, one server after the other."""
        assert self.current is not None
        rows = [Row(self.current.name, name, server) for server in measures]
        for _ in range(self.rounds):
            for row, measure in zip(rows, measures.values(), strict=True):
                row.add(measure())
        self.rows += rows
        self.terminal.case(name, rows, self.current.targets)

    def load(self, name: str, chosen: list[Server], **options: Any) -> None:
        """A case of the load generator's."""
        options.setdefault("seconds", self.seconds)
        self.case(
            name,
            {one.name: partial(generator.run, one, **options) for one in chosen},
        )

    def gtasks(self, **options: Any) -> list[Server]:
        """gtask, and that of the other checkout where one was named."""
        checkouts = [servers.ROOT, self.against] if self.against else [servers.ROOT]
        return [servers.gtask(checkout=checkout, **options) for checkout in checkouts]

    def note(self, text: str) -> None:
        assert self.current is not None
        self.notes.append((self.current.name, text))
        print(f"  {text}", flush=True)


# -- those that the targets are for ---------------------------------------------------------------


def _all_servers(bench: Bench) -> list[Server | None]:
    return [
        *bench.gtasks(),
        servers.workerman(),
        servers.naive(),
        servers.c_echo(),
        servers.gtask_from_sources(),
    ]


@pattern(Target(WORKERMAN, 0.9), Target(NAIVE, 0.5))
def kept(bench: Bench) -> None:
    """50 kept connections, one task at a time on each, one process."""
    with running(*_all_servers(bench)) as chosen:
        bench.load("", chosen)


@pattern(Target(WORKERMAN, 0.35))
def in_flight(bench: Bench) -> None:
    """50 kept connections, 16 tasks in flight on each, one process."""
    with running(*_all_servers(bench)) as chosen:
        bench.load("", chosen, depth=16)


@pattern(Target(WORKERMAN, 0.8))
def per_task(bench: Bench) -> None:
    """A connection for each task, 50 at once, one process: the way of the Workerman page."""
    with running(*_all_servers(bench)) as chosen:
        bench.load("", chosen, per_task=True)


@pattern(Target(WORKERMAN, 1.0, case="1"), Target(WORKERMAN, 0.9, case="100"))
def page(bench: Bench) -> None:
    """The whole page, with 1 and with 100 task processes: 20 websockets, for each message a
    connection to a task worker, and back. CPU time is that of front end and workers together.
    TaskClient's front end keeps its connections to the workers."""
    for count in (1, 100):
        fronts: list[Server | None] = []
        for module in servers.FRONT_ENDS:
            fronts += bench.gtasks(page=module, count=count)
        fronts.append(servers.workerman(count, page=True))
        if count == 1:
            fronts.append(servers.naive_page())
        with running(*fronts) as chosen:
            bench.load(str(count), chosen, websocket=True, connections=20)


# -- over a range ---------------------------------------------------------------------------------


@pattern()
def shapes(bench: Bench) -> None:
    """Shapes of a task: the page's three strings in and an object out, one string in and out, a list
    of arguments, ten keys, objects and lists within, 1 kB of Korean. 50 kept connections, one task
    at a time on each, one process. The C program does not escape Korean."""
    floor = servers.c_echo()
    with running(*bench.gtasks(), servers.workerman(), servers.naive(), floor) as chosen:
        for shape in SHAPES:
            able = [one for one in chosen if one is not floor or shape != "korean"]
            bench.load(shape, able, shape=shape)


@pattern()
def json_rpc(bench: Bench) -> None:
    """JSON-RPC calls with ids beside bare tasks: 50 kept connections, 1 and 16 in flight."""
    with running(*bench.gtasks()) as chosen:
        for depth in (1, 16):
            measures = {}
            for one in chosen:
                run = partial(generator.run, one, seconds=bench.seconds, depth=depth)
                measures[one.name] = run
                measures[f"{one.name}, JSON-RPC"] = partial(run, json_rpc=True)
            bench.case(f"{depth} in flight", measures)


@pattern(Target(WORKERMAN, 1.0), plot="cpu_us", axis="processes")
def processes(bench: Bench) -> None:
    """A connection for each task, 50 at once, on 1 to 100 processes: whether a herd wakes."""
    for count in (1, 4, 16, 100):
        with running(*bench.gtasks(count=count), servers.workerman(count)) as chosen:
            bench.load(str(count), chosen, per_task=True)


@pattern(
    *(Target(WORKERMAN, 1.0, case=size) for size in ("1000", "10000", "100000")),
    plot="cpu_us",
    axis="bytes of text",
)
def payloads(bench: Bench) -> None:
    """Texts of 10 bytes to 1 MB, one at a time on each of 10 kept connections."""
    with running(*bench.gtasks(), servers.workerman(), servers.naive(), servers.c_echo()) as chosen:
        for size in (10, 100, 1_000, 10_000, 100_000, 1_000_000):
            bench.load(str(size), chosen, connections=10, size=size)


@pattern(Target(WORKERMAN, 1.0, case="1"), plot="cpu_us", axis="kept connections")
def connections(bench: Bench) -> None:
    """1 to 10,000 kept connections, one task at a time on each. Workerman's select loop ends at
    1,024."""
    roomy = bench.gtasks(max_connections=20_000)
    with running(*roomy, servers.workerman(), servers.naive()) as chosen:
        for many in (1, 10, 100, 1_000, 10_000):
            able = [one for one in chosen if many < 1_000 or one.name != WORKERMAN]
            bench.load(str(many), able, connections=many)


@pattern(plot="p99", axis="tasks a second")
def latency(bench: Bench) -> None:
    """Tasks that are due at fixed times, so many a second, on 50 kept connections; a latency counts
    from when its task was due."""
    with running(*_all_servers(bench)) as chosen:
        for rate in (1_000, 3_000, 10_000, 20_000, 30_000):
            bench.load(str(rate), chosen, rate=rate, depth=256)


@pattern(Target(WORKERMAN, 1.0, case="1000"), plot="p99", axis="tasks a second")
def latency_per_task(bench: Bench) -> None:
    """The same with a connection for each task."""
    with running(*_all_servers(bench)) as chosen:
        for rate in (1_000, 3_000, 10_000):
            bench.load(str(rate), chosen, rate=rate, per_task=True, connections=1000)


# -- the calling side -----------------------------------------------------------------------------

CALLERS = {
    "TaskClient": "task-client",
    "AsyncTcpConnection": "connection",
    "gevent socket": "socket",
}


@pattern(Target("gevent socket", 1.5, server="AsyncTcpConnection"))
def caller(bench: Bench) -> None:
    """The CPU time of the calling process, 50 calls at once: TaskClient over a few connections that
    it keeps; AsyncTcpConnection and a bare gevent socket with a connection for each task."""
    calls = int(20_000 * bench.seconds)
    with running(servers.gtask()) as (server,):
        bench.case(
            "",
            {name: partial(call, way, server, calls) for name, way in CALLERS.items()},
        )


def call(way: str, server: Server, calls: int) -> SimpleNamespace:
    """A calling process, bench/servers/caller.py, and its own figures."""
    done = subprocess.run(
        [sys.executable, str(BENCH / "servers/caller.py"), way, str(server.port), str(calls)],
        env={**os.environ, "PYTHONPATH": servers.PYTHON_PATH},
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
    )
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr}")
    return SimpleNamespace(**json.loads(done.stdout))
