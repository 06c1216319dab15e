"""The servers that are measured: each a process tree on a processor of its own.

All listen on a free port of 127.0.0.1 and have the tasks of bench/c/shapes.h.
"""

from __future__ import annotations

import configparser
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import meters

BENCH = Path(__file__).resolve().parents[1]
ROOT = BENCH.parent
BUILD = BENCH / "build"
SERVERS = BENCH / "servers"
SERVER_CPU, LOAD_CPU = (sorted(os.sched_getaffinity(0)) * 2)[:2]
PYTHON_PATH = f"{ROOT}:{SERVERS}"
FRONT_ENDS = {"page": "", "page_client": ", TaskClient"}  # a module in SERVERS, what a name adds
CONNECT_SECONDS = 60.0
STOP_SECONDS = 10.0


@dataclass
class Server:
    """A server's program, and its process tree once started."""

    name: str
    command: list[str]
    port: int
    env: dict[str, str] = field(default_factory=dict)
    folder: str = "."
    process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Start it; returns when it accepts connections and has nothing more to do."""
        with tempfile.TemporaryFile() as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": PYTHON_PATH, **self.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CPU}),
            )
            if not self._wait_listening():
                log.seek(0)
                self.stop()
                raise SystemExit(f"{self.name} does not serve:\n{log.read().decode()}")
        meters.wait_quiet(self.pid)

    def _wait_listening(self) -> bool:
        assert self.process is not None
        deadline = time.monotonic() + CONNECT_SECONDS
        while self.port and time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return True
            time.sleep(0.05)
        return not self.port and self.process.poll() is None

    def stop(self) -> None:
        """End it: politely, then not."""
        assert self.process is not None
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        if self.folder != ".":
            shutil.rmtree(self.folder, ignore_errors=True)

    def cpu_seconds(self) -> float:
        return meters.cpu_seconds(self.pid)

    def pss_bytes(self) -> int:
        return meters.pss_bytes(self.pid)


@contextlib.contextmanager
def running(*servers: Server | None) -> Iterator[list[Server]]:
    """Those of the servers that are there on this machine, started; stopped at the end."""
    chosen = [server for server in servers if server is not None]
    started: list[Server] = []
    try:
        for server in chosen:
            started.append(server)
            server.start()
        yield chosen
    finally:
        for server in started:
            server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def gtask(*, checkout: Path = ROOT, page: str = "", **options: Any) -> Server:
    """`gtask-worker -c bench/worker.ini`, with `options` as further keys of its service.

    Args:
        checkout: whose gtask; the tasks are those of this one.
        page: one of FRONT_ENDS: the websocket front end of the page is there, too, and at `port`.
    """
    name = "gtask" if checkout == ROOT else f"gtask of {checkout.name}"
    folder = tempfile.mkdtemp(prefix="gtask-bench-")
    port = front = free_port()
    config = configparser.ConfigParser(inline_comment_prefixes=";")
    config.read(BENCH / "worker.ini")
    changes = {"listen": f"text://127.0.0.1:{port}", **options}
    config["worker:Tasks"].update({key: str(value) for key, value in changes.items()})
    env = {"PYTHONPATH": f"{checkout}:{SERVERS}"}
    if page:
        front = free_port()
        name += FRONT_ENDS[page]
        config["worker:Web"] = {"listen": f"websocket://127.0.0.1:{front}", "handler": page}
        env["BENCH_TASKS"] = f"text://127.0.0.1:{port}"
    with open(f"{folder}/worker.ini", "w") as file:
        config.write(file)
    command = [python_of(checkout), str(checkout / "bin/gtask-worker"), "-c", "worker.ini"]
    return Server(name, command, front, env, folder)


def python_of(checkout: Path) -> str:
    """This Python; for another checkout that of its tests' environment, where there is one."""
    own = checkout / ".venv-test/bin/python"
    return str(own) if checkout != ROOT and own.exists() else sys.executable


def gtask_from_sources() -> Server:
    """The same, not compiled."""
    server = gtask()
    server.name += " from sources"
    server.env["GTASK_PURE"] = "1"
    return server


def c_echo() -> Server:
    """The floor: the system calls of a server, and no JSON."""
    port = free_port()
    return Server("C epoll echo", [str(BUILD / "echo"), str(port)], port)


def naive() -> Server:
    """What one would write first with gevent."""
    port = free_port()
    return Server(
        "gevent StreamServer", [sys.executable, str(SERVERS / "naive.py"), str(port)], port
    )


def naive_page() -> Server:
    """The page with gevent-websocket as it is, and a bare socket for each task."""
    port = free_port()
    command = [sys.executable, str(SERVERS / "naive_page.py"), str(port), str(free_port())]
    return Server("gevent-websocket + StreamServer", command, port)


def workerman(count: int = 1, *, page: bool = False, name: str = "Workerman") -> Server | None:
    """Workerman, where WORKERMAN_DIR is a checkout of it and php is there."""
    if not has_workerman():
        return None
    port = free_port()
    command = ["php", str(SERVERS / "workerman.php"), str(port), str(count)]
    if page:
        command.append(str(free_port()))
    return Server(name, command, port)


def has_workerman() -> bool:
    folder = os.environ.get("WORKERMAN_DIR", "")
    return bool(folder) and Path(folder, "src/Worker.php").exists() and bool(shutil.which("php"))
