"""The parts of examples/mailer as real processes: the mail sink, and the browser that looks."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .spawn import ROOT
from .wait import SLOWNESS

CHROMIUM = "/usr/bin/chromium"
CHROMIUM_OPTIONS = [
    "--no-sandbox",  # needed by root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Sink:
    """A mail sink; `count` and `messages` are what it has received.

    Args:
        smtp_port: 0 takes a free one.
        delay: milliseconds it takes for each mail.
    """

    def __init__(self, smtp_port: int = 0, delay: float = 0) -> None:
        ports = ["--smtp-port", str(smtp_port), "--http-port", "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.mailer.sink", *ports, "--delay", str(delay)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("sink: ready smtp://"), line
        smtp_url, self.url = line.split()[2:]
        self.smtp_port = int(smtp_url.rpartition(":")[2])

    @property
    def env(self) -> dict[str, str]:
        """What tells the tasks and the front end where it is."""
        return {"SMTP_PORT": str(self.smtp_port), "SINK_URL": self.url}

    @property
    def count(self) -> int:
        count: int = self.get("/messages?newest=0")["count"]
        return count

    def messages(self, newest: int = 200) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.get(f"/messages?newest={newest}")["messages"]
        return messages

    def get(self, path: str) -> Any:
        with _direct.open(self.url + path, timeout=10) as response:
            return json.load(response)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(10 * SLOWNESS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def get(url: str) -> bytes:
    """The body of a page, past any proxy."""
    with _direct.open(url, timeout=10) as response:
        body: bytes = response.read()
        return body


def free_port() -> int:
    """A port that is free now, for what must know it before it starts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def mailer_ini(folder: Path, web_port: int) -> str:
    """A configuration of the example: tasks on a unix socket, see `mailer_env`."""
    return f"""
[gtask]
control = {folder}/control.sock
stop_timeout = 5

[worker:TaskWorker]
listen = text+unix://{folder}/tasks.sock
count = 2
tasks = examples.mailer.tasks

[worker:Web]
listen = websocket://127.0.0.1:{web_port}
handler = examples.mailer.web
"""


def mailer_env(folder: Path, sink: Sink) -> dict[str, str]:
    """The environment for `mailer_ini`."""
    return {"TASK_URL": f"text+unix://{folder}/tasks.sock", "SMTP_HOST": "", **sink.env}


@contextmanager
def chromium() -> Iterator[Any]:
    """A real headless browser."""
    if not os.access(CHROMIUM, os.X_OK):
        pytest.fail(f"{CHROMIUM} is missing: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()
