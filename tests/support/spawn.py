"""Real `gtask-worker` processes for tests: their own folder, free ports, their log kept."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .peer import Peer
from .wait import SLOWNESS, wait_until

ROOT = Path(__file__).resolve().parents[2]


class SpawnedWorker:
    """A `gtask-worker` in the foreground.

    Args:
        folder: working directory; task modules there can be imported.
        ini: the configuration's text. ``listen = text://127.0.0.1:0`` takes a free port.
    """

    def __init__(
        self, folder: Path, ini: str, *, env: dict[str, str] | None = None, wait: bool = True
    ) -> None:
        self.folder = folder
        self.config = folder / "worker.ini"
        self.config.write_text(ini)
        self.log = folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gtask", "-c", "worker.ini"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.expects_traceback = False
        if wait:
            self.wait_ready()

    @property
    def text(self) -> str:
        """The log so far."""
        return self.log.read_text(errors="replace")

    def wait_ready(self, seconds: float = 20.0) -> None:
        """Until every service has said that it is ready."""
        names = re.findall(r"(?m)^\[worker:(.+)\]", self.config.read_text())

        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"exit {self.process.returncode}:\n{self.text}")
            return all(self.url(name) for name in names)

        wait_until(ready, seconds, f"ready\n{self.text}")

    def url(self, name: str = "Tasks") -> str:
        """Where a service listens, from its latest ready line."""
        found = re.findall(rf"\b{re.escape(name)} ready: (\S+?),? ", self.text + " ")
        return found[-1] if found else ""

    def address(self, name: str = "Tasks") -> tuple[str, int] | str:
        url = self.url(name)
        if "+unix://" in url:
            return url.partition("+unix://")[2]
        host, _, port = url.partition("://")[2].rpartition(":")
        return host.strip("[]"), int(port)

    def peer(self, name: str = "Tasks", timeout: float = 10.0) -> Peer:
        return Peer(self.address(name), timeout)

    def command(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `gtask-worker -c worker.ini WORDS`."""
        return subprocess.run(
            [sys.executable, "-m", "gtask", "-c", "worker.ini", *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=timeout * SLOWNESS,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    @contextlib.contextmanager
    def unharmed(self) -> Iterator[SpawnedWorker]:
        """None of its processes may end meanwhile."""
        pids = self.pids()
        yield self
        assert self.pids() == pids, f"a process ended:\n{self.text}"

    def pids(self) -> set[int]:
        """The processes of the tree below the master, molds included."""
        return set(descendants(self.process.pid))

    def send_signal(self, number: int) -> None:
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        """End it; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(seconds * SLOWNESS)

    def close(self) -> None:
        """End it in any case, and check that its log holds no traceback of ours."""
        tree = self.pids() if self.process.poll() is None else set()
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            for pid in tree:
                kill(pid)
            raise AssertionError(f"did not stop:\n{self.text}") from None
        if not self.expects_traceback:
            assert "Traceback" not in self.text, self.text


def descendants(pid: int) -> list[int]:
    """Child processes of `pid`, and theirs."""
    found = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    except OSError:
        pass  # it has ended meanwhile
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def is_alive(pid: int) -> bool:
    """There is such a process, and it is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
