"""A handler module in real processes: the worker's own callbacks, and that failures stay local."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.spawn import SpawnedWorker
from ..support.wait import wait_until

HANDLER = """
import time
from gtask import Timer

def say(*words): print(*words, flush=True)

def on_worker_start(worker):
    say("start", worker.id)
    Timer.add(0.05, say, "timer", persistent=False)

def on_worker_reload(worker): say("reload", worker.id)
def on_worker_stop(worker): say("stop", worker.id)

def on_connect(connection):
    connection.context.count = 0

def on_message(connection, data):
    if data == "raise":
        raise RuntimeError("on purpose")
    time.sleep(float(data))
    connection.context.count += 1
    connection.send(f"{connection.context.count}: {data}")

def on_close(connection): say("close", connection.context.count)
"""
INI = """
[gtask]
control = control.sock
stop_timeout = 5
[worker:Tasks]
listen = text://127.0.0.1:0
handler = handler
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[SpawnedWorker]:
    (tmp_path / "handler.py").write_text(HANDLER)
    worker = SpawnedWorker(tmp_path, INI)
    yield worker
    worker.close()


def words(worker: SpawnedWorker) -> list[str]:
    """What the handler has said, without the log."""
    return [line for line in worker.text.splitlines() if not line.startswith("20")]


def test_the_life_of_a_process(worker: SpawnedWorker) -> None:
    wait_until(lambda: words(worker) == ["start 0", "timer"])
    assert worker.command("reload").returncode == 0
    # The new process starts before the old one ends.
    wait_until(
        lambda: sorted(words(worker)) == sorted(["start 0", "timer"] * 2 + ["reload 0", "stop 0"])
    )
    assert words(worker).index("reload 0") < words(worker).index("stop 0")
    assert worker.stop() == 0
    assert words(worker)[-1] == "stop 0"
    assert words(worker).count("reload 0") == 1


def test_messages_of_a_connection_in_order_and_connections_side_by_side(
    worker: SpawnedWorker,
) -> None:
    with worker.peer() as slow, worker.peer() as quick:
        slow.send(b"0.3\n0\n")
        quick.send(b"0\n")
        assert quick.line() == b"1: 0"
        assert slow.line() == b"1: 0.3"
        assert slow.line() == b"2: 0"
    wait_until(lambda: {"close 1", "close 2"} <= set(words(worker)))


def test_an_exception_closes_its_own_connection_only(worker: SpawnedWorker) -> None:
    worker.expects_traceback = True
    with worker.peer() as failing, worker.peer() as other:
        other.send(b"0.2\n")
        failing.send(b"raise\n")
        assert failing.is_closed()
        assert other.line() == b"1: 0.2"
    wait_until(lambda: "close 0" in words(worker))
    assert worker.text.count("RuntimeError: on purpose") == 1
    assert words(worker).count("start 0") == 1, "the process lives on"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_connections_end_before_their_process(worker: SpawnedWorker, number: int) -> None:
    with worker.peer() as one, worker.peer() as two:
        for peer in (one, two):
            peer.send(b"0\n")
            assert peer.line() == b"1: 0"
        assert worker.stop(number) == 0
    assert words(worker)[-3:] == ["close 1", "close 1", "stop 0"]
