"""Drives the load generator, bench/c/load.c, and reads a server's meters around its run."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .servers import BUILD, LOAD_CPU, Server

SOURCES = Path(__file__).resolve().parents[1] / "c"


@dataclass(frozen=True)
class Result:
    """One run; times in microseconds."""

    tasks: int
    errors: int
    error: str
    rate: float
    cpu_us: float
    p50: float
    p99: float
    p999: float
    max: float


def build() -> None:
    """Compile the C programs, where a source or header is newer."""
    BUILD.mkdir(exist_ok=True)
    newest = max(source.stat().st_mtime for source in SOURCES.iterdir())
    for source in SOURCES.glob("*.c"):
        target = BUILD / source.stem
        if not target.exists() or target.stat().st_mtime < newest:
            subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-o", target, source], check=True)


def run(server: Server, **options: Any) -> Result:
    """One run of the load generator against `server`; options as `load --help` tells.

    `seconds=1.5` without `tasks` is as many as are answered in that time.
    """
    options.setdefault("tasks", 100_000_000)
    with _started(server, **options) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        before = server.cpu_seconds()
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        time.sleep(0.02)  # what the server does after its last answer
        used = server.cpu_seconds() - before
    if not line:
        raise SystemExit(f"{server.name}: the load generator died: {process.args!r}")
    told = json.loads(line)
    told["rate"] = told["tasks"] / told.pop("seconds")
    del told["p90"]
    return Result(**told, cpu_us=used / max(1, told["tasks"]) * 1e6)


@contextlib.contextmanager
def holding(server: Server, idle: int) -> Iterator[None]:
    """So many idle connections to `server`."""
    with _started(server, connections=1, idle=idle):
        time.sleep(1)  # until all of them are accepted
        yield


@contextlib.contextmanager
def _started(server: Server, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """The generator, its connections open, its clock not started."""
    command = [str(BUILD / "load"), "--port", str(server.port), "--wait"]
    for name, value in options.items():
        flag = "--" + name.replace("_", "-")
        command += [flag] if value is True else [flag, str(value)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{server.name}: {process.stderr.read()}{' '.join(command)}")
        yield process
