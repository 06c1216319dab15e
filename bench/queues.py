"""Task queues of Python through Redis, each a worker process beside a gtask worker.

They are more than gtask is: a broker keeps the tasks. What is compared is what a task costs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from kit import environment, servers
from kit.servers import BUILD, LOAD_CPU, SERVERS, Server, running
from patterns import Bench, pattern

FOLDER = SERVERS / "queues"
PACKAGES = ("celery[redis]", "rq", "huey", "dramatiq[redis]", "redis")
WORKERS = {
    "Huey": ("huey_tasks", "huey.bin.huey_consumer", "huey_tasks.huey"),
    "Dramatiq": ("dramatiq_tasks", "dramatiq", "dramatiq_tasks", "--processes", "1"),
    "Celery": ("celery_tasks", "celery", "-A", "celery_tasks", "worker", "--concurrency", "1"),
    "RQ": ("rq_tasks", "rq.cli", "worker", "bench", "--url", "redis://127.0.0.1:{port}"),
}


@pattern()
def queues(bench: Bench) -> None:
    """One worker process of Celery, RQ, Huey and Dramatiq, each with a Redis server whose CPU time
    is counted; a caller waits for the result of one task, or of 50 at once. gtask's caller is
    TaskClient. Those keep a task when a process dies, which gtask does not."""
    redis = shutil.which("redis-server")
    if redis is None:
        bench.note("not measured: no redis-server (apt-get install redis-server)")
        return
    python = _environment()
    with running(servers.gtask()) as (gtask,):
        measures: dict[str, Callable[[int, int], object]] = {
            "gtask": lambda many, at_once: _call(
                Path(sys.executable),
                "gtask_tasks",
                {"GTASK_PORT": str(gtask.port)},
                [gtask],
                many,
                at_once,
            )
        }
        others = [(name, *_servers(redis, python, *words)) for name, words in WORKERS.items()]
        with running(*(one for _, _, *pair in others for one in pair)):
            for name, module, broker, worker in others:
                measures[name] = _measure(python, module, broker, worker)
            for case, at_once, seconds in (("50 at once", 50, 1.0), ("one at a time", 1, 0.5)):
                _case(bench, case, at_once, seconds * bench.seconds, measures)
    bench.note(f"with {', '.join(_versions(python))}")


def _case(
    bench: Bench,
    case: str,
    at_once: int,
    seconds: float,
    measures: dict[str, Callable[[int, int], object]],
) -> None:
    """Each for about so many seconds, which a first short run tells the number of calls for."""
    many = {}
    for name, measure in measures.items():
        rate = measure(at_once * 2 if at_once > 1 else 20, at_once).rate  # type: ignore[attr-defined]
        many[name] = max(at_once, 20, int(rate * seconds) // at_once * at_once)
    bench.case(
        case,
        {name: partial(measure, many[name], at_once) for name, measure in measures.items()},
    )


def _servers(
    redis: str, python: Path, module: str, program: str, *words: str
) -> tuple[str, Server, Server]:
    port = servers.free_port()
    data = tempfile.mkdtemp(prefix="gtask-bench-redis-")
    broker = Server(
        "Redis", [redis, "--port", str(port), "--save", "", "--dir", data], port, folder=data
    )
    command = [str(python), "-m", program, *(word.format(port=port) for word in words)]
    env = {"REDIS_PORT": str(port), "PYTHONPATH": str(FOLDER)}
    return module, broker, Server(program, command, 0, env, folder=tempfile.mkdtemp())


def _measure(
    python: Path, module: str, broker: Server, worker: Server
) -> Callable[[int, int], object]:
    env = {"REDIS_PORT": str(broker.port)}
    return lambda many, at_once: _call(python, module, env, [broker, worker], many, at_once)


def _call(
    python: Path, module: str, env: dict[str, str], tree: list[Server], many: int, at_once: int
) -> SimpleNamespace:
    with subprocess.Popen(
        [str(python), str(FOLDER / "caller.py"), module, str(many), str(at_once)],
        env={**os.environ, "PYTHONPATH": servers.PYTHON_PATH, **env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CPU}),
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"{module}: the worker does not answer")
        before = sum(one.cpu_seconds() for one in tree)
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        time.sleep(0.05)
        used = sum(one.cpu_seconds() for one in tree) - before
    told = json.loads(line)
    return SimpleNamespace(**told, cpu_us=used / told["tasks"] * 1e6)


def _environment() -> Path:
    python = BUILD / "queues/bin/python"
    if not python.exists():
        print(f"  making {python.parents[1]} with {', '.join(PACKAGES)}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        environment.install(python, *PACKAGES)
    return python


def _versions(python: Path) -> list[str]:
    code = "import importlib.metadata as m; [print(n, m.version(n)) for n in {names}]"
    names = ["celery", "rq", "huey", "dramatiq", "redis"]
    done = subprocess.run(
        [str(python), "-c", code.format(names=names)], capture_output=True, text=True, check=True
    )
    redis = subprocess.run(
        ["redis-server", "--version"], capture_output=True, text=True, check=True
    )
    return [*done.stdout.splitlines(), f"redis-server {redis.stdout.split('v=')[1].split()[0]}"]
