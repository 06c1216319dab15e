"""The Workerman page as one script (`examples/mailer/page.py`), seen by clients of another maker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

from ..support.mailer import free_port
from ..support.peer import Peer
from ..support.spawn import ROOT, descendants, is_alive
from ..support.wait import SLOWNESS, wait_until

CLIENTS = 20
TASK_SECONDS = 0.2


@contextmanager
def script(command: list[str], folder: Path, task_port: int, web_port: int) -> Iterator[Path]:
    """The script while it runs; gives its output. It ends with 0 and leaves nothing behind."""
    output = folder / "output"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "TASK_URL": f"Text://127.0.0.1:{task_port}",
        "WEB_URL": f"websocket://127.0.0.1:{web_port}",
    }
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=env, stdout=file, stderr=file
        )
    try:
        wait_until(lambda: output.read_text().count(" ready: ") == 2, what="both workers ready")
        yield output
        pids = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10 * SLOWNESS) == 0
        wait_until(lambda: not any(map(is_alive, pids)), what="nothing is left running")
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in output.read_text()


def job(web_port: int) -> tuple[str | bytes, float]:
    """What a browser does on the Workerman page; returns the answer and the seconds it took."""
    with connect(f"ws://127.0.0.1:{web_port}/", compression=None) as websocket:
        started = time.monotonic()
        websocket.send("go")
        return websocket.recv(timeout=10 * SLOWNESS), time.monotonic() - started


@pytest.mark.parametrize(
    "command", [["-m", "examples.mailer.page"], [str(ROOT / "examples/mailer/page.py")]]
)
def test_the_page_translated_line_by_line(command: list[str], tmp_path: Path) -> None:
    task_port, web_port = free_port(), free_port()
    with script(command, tmp_path, task_port, web_port) as output:
        with ThreadPoolExecutor(CLIENTS) as pool:
            jobs = list(pool.map(job, [web_port] * CLIENTS))
        assert [answer for answer, _ in jobs] == ["작업 완료"] * CLIENTS
        one_after_the_other = CLIENTS * TASK_SECONDS
        assert max(seconds for _, seconds in jobs) < one_after_the_other / 4 * SLOWNESS
        assert output.read_text().count('{"sent": true, "to": "xxx"}') == CLIENTS
        with Peer(("127.0.0.1", task_port)) as peer:  # a PHP caller's line, byte for byte
            mail = b'{"function":"send_mail","args":{"from":"a","to":"b","contents":"c"}}'
            assert peer.ask(mail) == {"sent": True, "to": "b"}
