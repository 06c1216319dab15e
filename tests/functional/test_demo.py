"""`bin/demo` from a fresh copy of the checkout: installs, starts, ends, and complains clearly."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.mailer import free_port, get
from ..support.peer import Peer
from ..support.spawn import ROOT, descendants, is_alive
from ..support.wait import wait_until


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has: the checkout without what was built in it."""
    clone = tmp_path_factory.mktemp("clone") / "gtask"
    shutil.copytree(
        ROOT,
        clone,
        ignore=shutil.ignore_patterns(
            ".git", ".venv*", "*.egg-info", "__pycache__", "run", "build"
        ),
    )
    return clone


class Demo:
    """`bin/demo` on a terminal of its own."""

    def __init__(self, clone: Path, folder: Path, **env: str) -> None:
        self.task_port, self.web_port = free_port(), free_port()
        config = folder / "demo.ini"
        shipped = (clone / "conf/worker.ini").read_text()
        config.write_text(
            shipped.replace(":12345", f":{self.task_port}").replace(":8080", f":{self.web_port}")
        )
        self.output = folder / "output"
        self.terminal, inside = os.openpty()
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(clone / "bin/demo"), "-c", str(config)],
                cwd="/",
                env={**os.environ, "SMTP_HOST": "", **env},
                stdin=inside,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            )
        os.close(inside)

    @property
    def text(self) -> str:
        return self.output.read_text()

    def wait_ready(self, seconds: float) -> str:
        """The URL that it prints."""

        def url() -> str:
            assert self.process.poll() is None, self.text
            found = re.search(r"The demo is ready: +(\S+)", self.text)
            return found[1] if found else ""

        url_found: str = wait_until(url, seconds, "the URL")
        return url_found

    def press_control_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)
        os.close(self.terminal)


@pytest.fixture
def demo(clone: Path, tmp_path: Path) -> Iterator[Demo]:
    demo = Demo(clone, tmp_path)
    yield demo
    demo.close()


def wait_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_alive, pids)), what="nothing is left running")


def test_installs_serves_and_ends_on_control_c(demo: Demo) -> None:
    url = demo.wait_ready(300)  # the environment is made here, once for this module
    assert url == f"http://127.0.0.1:{demo.web_port}/"
    assert b"<title>" in get(url)
    with Peer(("127.0.0.1", demo.task_port)) as peer:
        mail = {"from": "a@example.org", "to": "b@example.org", "contents": "hi"}
        assert peer.ask({"function": "send_mail", "args": mail})["sent"] == 1
    assert json.loads(get(f"{url}messages"))["count"] == 1
    pids = descendants(demo.process.pid)
    assert len(pids) >= 7, "sink, master, mold, five workers"
    demo.press_control_c()
    assert demo.process.wait(15) == 0, demo.text
    assert "Traceback" not in demo.text
    wait_gone(pids)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", demo.web_port)) != 0


def test_starts_again_without_installing(demo: Demo) -> None:
    demo.wait_ready(30)
    assert "making" not in demo.text
    demo.process.terminate()
    assert demo.process.wait(15) == 0


def test_leaves_nothing_behind_when_it_is_killed(demo: Demo) -> None:
    demo.wait_ready(30)
    pids = descendants(demo.process.pid)
    demo.process.kill()
    wait_gone(pids)


def test_ends_when_its_terminal_is_closed(clone: Path) -> None:
    terminal, inside = os.openpty()
    process = subprocess.Popen(
        [str(clone / "bin/demo"), "--port", "0", "--task-port", "0"],
        env={**os.environ, "SMTP_HOST": ""},
        stdin=inside,
        stdout=inside,
        stderr=inside,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(inside)
    text = b""
    while b"Ctrl-C ends" not in text:
        text += os.read(terminal, 4096)
    url = re.search(r"http://127.0.0.1:\d+/", text.decode())
    assert url
    assert b"<title>" in get(url[0])
    pids = descendants(process.pid)
    os.close(terminal)
    assert process.wait(15) == 0
    wait_gone(pids)


def test_says_so_when_a_part_ends(demo: Demo) -> None:
    demo.wait_ready(30)
    sink = next(
        pid
        for pid in descendants(demo.process.pid)
        if b"mailer.sink" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )
    os.kill(sink, signal.SIGKILL)
    assert demo.process.wait(15) == 1
    assert "bin/demo: the mail sink has ended" in demo.text
    assert "Traceback" not in demo.text


def test_a_port_in_use_is_one_clear_message(clone: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = tmp_path / "demo.ini"
        shipped = (clone / "conf/worker.ini").read_text()
        config.write_text(shipped.replace(":12345", f":{free_port()}").replace(":8080", f":{port}"))
        done = subprocess.run(
            [clone / "bin/demo", "-c", config], capture_output=True, text=True, timeout=60
        )
    assert done.returncode == 69
    assert done.stdout == ""
    assert done.stderr.startswith(f"bin/demo: port {port} is in use.")
    assert f"bin/demo --port {port + 1}" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_and_bad_configuration(clone: Path, tmp_path: Path) -> None:
    shown = subprocess.run(
        [clone / "bin/demo", "--help"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "SMTP_HOST" in shown.stdout
    done = subprocess.run(
        [clone / "bin/demo", "-c", tmp_path / "none.ini"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 78
    assert done.stderr.startswith("bin/demo: cannot read ")
    assert done.stderr.count("\n") == 1
