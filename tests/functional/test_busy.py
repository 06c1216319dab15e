"""A service that is full is not dead: whoever asks on a new connection is answered."""

from __future__ import annotations

import contextlib
import json
import time

import pytest

from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = control.sock

[worker:Tasks]
listen = {listen}
count = {count}
concurrency = {concurrency}
tasks = tasks
"""

TASKS = """
import os, time
from gevent import monkey
from gtask import task

native_sleep = monkey.get_original("time", "sleep")

@task
def hold(folder, native=False):
    open(f"{folder}/started.{os.getpid()}.{time.monotonic()}", "w").close()
    while not os.path.exists(f"{folder}/go"):
        (native_sleep if native else time.sleep)(0.01)
    return "held"

@task
def pid():
    return os.getpid()
"""


@pytest.fixture
def full(spawn, tmp_path):
    """Start a service, and take all of its turns by tasks that `native` says the kind of."""
    with contextlib.ExitStack() as stack:
        holders = []

        def start(count=2, concurrency=1, listen="text://127.0.0.1:0", native=()):
            worker = spawn(
                INI.format(listen=listen, count=count, concurrency=concurrency), tasks=TASKS
            )
            for number in range(count * concurrency):
                peer = stack.enter_context(worker.peer(timeout=30))
                args = {"folder": str(tmp_path), "native": number in native}
                peer.send(json.dumps({"function": "hold", "args": args}).encode() + b"\n")
                many = number + 1
                wait_until(lambda many=many: len(list(tmp_path.glob("started.*"))) == many)
                holders.append(peer)
            return worker

        start.holders = holders
        start.go = (tmp_path / "go").touch
        yield start
        start.go()


@pytest.mark.parametrize("listen", ["text://127.0.0.1:0", "text+unix://{}/s.sock"])
@pytest.mark.parametrize(("count", "concurrency"), [(1, 1), (2, 1), (3, 4)])
def test_health_and_ping_are_answered_on_new_connections(
    full, tmp_path, listen, count, concurrency
):
    worker = full(count, concurrency, listen.format(tmp_path))
    for _ in range(5):
        started = time.monotonic()
        with worker.peer() as peer:
            assert peer.bare("gtask.ping") == "pong"
            assert peer.rpc("gtask.health", {})["result"]["status"] == "busy"
        assert time.monotonic() - started < 1.5 * SLOWNESS
    full.go()
    assert [peer.json() for peer in full.holders] == ["held"] * (count * concurrency)
    with worker.peer() as peer:
        assert peer.bare("gtask.health")["status"] == "ready"


def test_also_while_the_loop_of_a_sibling_stands_still(full):
    worker = full(3, 1, native=(1,))
    for _ in range(3):
        started = time.monotonic()
        with worker.peer() as peer:
            assert peer.bare("gtask.health")["status"] == "busy"
        assert time.monotonic() - started < 1.9 * SLOWNESS


def test_behind_many_callers_that_wait(full):
    worker = full(2, 1)
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(worker.peer(timeout=30)) for _ in range(200)]
        for peer in waiting:
            peer.send(b'{"function":"pid"}\n')
        started = time.monotonic()
        with worker.peer() as peer:
            assert peer.bare("gtask.health")["status"] == "busy"
        assert time.monotonic() - started < 1.9 * SLOWNESS
        full.go()
        pids = {peer.json() for peer in waiting}
    assert len(pids) == 2


def test_calls_wait_for_their_turn_until_their_own_time(full):
    worker = full(2, 1)
    with worker.peer() as short, worker.peer() as long, worker.peer() as rpc:
        short.send(b'{"function":"pid","timeout":0.5}\n')
        long.send(b'{"function":"pid"}\n')
        rpc.send(b'{"jsonrpc":"2.0","method":"pid","id":1}\n')
        assert short.json()["error"]["code"] == -32001
        full.go()
        assert isinstance(long.json(), int)
        assert isinstance(rpc.json()["result"], int)


def test_nobody_takes_more_while_a_sibling_has_a_turn(full, tmp_path):
    """One of two is full, and the other one's loop stands still for a moment: it is waited for."""
    worker = full(1, 1)
    pid = next(iter(tmp_path.glob("started.*"))).name.split(".")[1]
    worker.command("reload")  # it drains, and another one takes its place
    wait_until(lambda: len(worker.status()["services"][0]["processes"]) == 2)
    with worker.peer() as peer:
        assert peer.bare("pid") != int(pid)
