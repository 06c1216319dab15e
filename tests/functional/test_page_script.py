"""The Workerman page as a script, examples/mailer/page.py: 작업 완료 for everybody, and nobody waits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from websockets.sync.client import connect

from ..support.mailer import free_port
from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until

CLIENTS = 20
TASK_SECONDS = 0.2  # as the script's `send_mail` takes


class Script:
    """The script, running on free ports."""

    def __init__(self, folder: Path) -> None:
        self.task_port, self.web_port = free_port(), free_port()
        self.output = folder / "output"
        urls = {
            "TASK_URL": f"Text://127.0.0.1:{self.task_port}",  # Workerman's spelling
            "WEB_URL": f"websocket://127.0.0.1:{self.web_port}",
        }
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "examples.mailer.page"],
                cwd=ROOT,
                env={**os.environ, **urls},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: len(re.findall(" ready: ", self.text)) == 2, 20, "both services")

    @property
    def text(self) -> str:
        return self.output.read_text()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20 * SLOWNESS)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    script = Script(tmp_path_factory.mktemp("script"))
    yield script
    assert script.stop() == 0, script.text
    assert "Traceback" not in script.text


def test_every_client_is_told_and_the_tasks_run_at_once(script: Script) -> None:
    def client(number: int) -> str | bytes:
        with connect(f"ws://127.0.0.1:{script.web_port}/", proxy=None) as websocket:
            websocket.send(f"please, {number}")
            return websocket.recv(timeout=10 * SLOWNESS)

    began = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = list(pool.map(client, range(CLIENTS)))
    assert answers == ["작업 완료"] * CLIENTS
    assert time.monotonic() - began < CLIENTS * TASK_SECONDS / 2 * SLOWNESS
    results = [line for line in script.text.splitlines() if line.startswith("{")]
    assert [json.loads(line) for line in results] == [{"sent": True, "to": "xxx"}] * CLIENTS


def test_a_connection_is_served_while_its_task_runs(script: Script) -> None:
    url = f"ws://127.0.0.1:{script.web_port}/"
    with connect(url, proxy=None) as asking, connect(url, proxy=None) as pinging:
        asking.send("go")
        assert pinging.ping().wait(TASK_SECONDS / 2 * SLOWNESS)
        assert asking.recv(timeout=10 * SLOWNESS) == "작업 완료"


def test_its_task_workers_take_lines_from_anybody(script: Script) -> None:
    with Peer(("127.0.0.1", script.task_port)) as peer:
        mail = {"from": "xxx", "to": "you", "contents": "xxx"}
        answer = peer.ask({"function": "send_mail", "args": mail})
        assert answer == {"sent": True, "to": "you"}
