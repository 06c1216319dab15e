"""Tasks spread over the processes of a service as from one queue: by counts, not by times.

The tasks of a burst wait for one another in `started` and `go`, so who runs what does not depend
on how fast the machine is.
"""

from __future__ import annotations

import selectors
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import SpawnedWorker
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = control.sock

[worker:Tasks]
listen = text://127.0.0.1:0
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
def pid():
    return os.getpid()

@task
def nap(seconds):
    time.sleep(seconds)
    return os.getpid()

@task
def hold(folder, number, native):
    open(f"{folder}/started.{number}", "w").close()
    while not os.path.exists(f"{folder}/go"):
        (native_sleep if native else time.sleep)(0.005)
    return os.getpid()
"""

BURSTS = 5


@pytest.fixture
def fair(spawn: Callable[..., SpawnedWorker]) -> Callable[[int, int], SpawnedWorker]:
    """Start so many processes, which run so many tasks at once each."""
    return lambda count, concurrency: spawn(
        INI.format(count=count, concurrency=concurrency), tasks=TASKS
    )


def test_a_burst_is_shared_among_idle_workers(
    fair: Callable[[int, int], SpawnedWorker], tmp_path: Path
) -> None:
    worker = fair(4, 100)
    for number in range(BURSTS):
        shares = held_burst(worker, tmp_path / f"burst{number}", 12)
        assert max(shares.values()) <= 4, shares


@pytest.mark.parametrize("native", [False, True], ids=["cooperative", "native"])
def test_no_blocking_task_waits_while_a_worker_is_idle(
    fair: Callable[[int, int], SpawnedWorker], tmp_path: Path, native: bool
) -> None:
    worker = fair(8, 1)
    for number in range(BURSTS):
        # All of them have started before one ends; so none waits for a second turn.
        shares = held_burst(worker, tmp_path / f"burst{number}", 8, native=native)
        assert set(shares.values()) == {1}, shares


def test_kept_connections_are_shared(fair: Callable[[int, int], SpawnedWorker]) -> None:
    worker = fair(4, 100)
    with ExitStack() as opened:
        peers = [opened.enter_context(worker.peer()) for _ in range(200)]
        shares = Counter(peer.bare("pid") for peer in peers)
    assert max(shares.values()) <= 50 * 1.2, shares


def test_a_queue_is_worked_off_by_all(fair: Callable[[int, int], SpawnedWorker]) -> None:
    worker = fair(8, 1)
    with ExitStack() as opened:
        peers = [opened.enter_context(worker.peer()) for _ in range(80)]
        for peer in peers:
            peer.send(b'{"function":"nap","args":[0.05]}\n')
        shares = Counter(answers(peers))
    # The busiest of them decides how long it takes: ten turns are ideal.
    assert max(shares.values()) <= 10 * 1.3, shares


def held_burst(
    worker: SpawnedWorker, folder: Path, many: int, *, native: bool = False
) -> Counter[int]:
    """How many of so many tasks each process runs, when all of them must start before one ends."""
    wait_until(lambda: connections(worker) == 0, what="idle")
    folder.mkdir()
    with ExitStack() as opened:
        peers = [opened.enter_context(worker.peer()) for _ in range(many)]
        for number, peer in enumerate(peers):
            args = f'{{"folder":"{folder}","number":{number},"native":{str(native).lower()}}}'
            peer.send(b'{"function":"hold","args":%b}\n' % args.encode())
        wait_until(
            lambda: len(list(folder.glob("started.*"))) == many,
            what=f"all {many} tasks have started",
        )
        (folder / "go").touch()
        return Counter(peer.json() for peer in peers)


def connections(worker: SpawnedWorker) -> int:
    return sum(service["connections"] for service in worker.status()["services"])


def answers(peers: list[Peer]) -> Iterator[int]:
    """One of each, whoever has his first; his connection is closed then."""
    with selectors.DefaultSelector() as selector:
        for peer in peers:
            selector.register(peer.socket, selectors.EVENT_READ, peer)
        while selector.get_map():
            ready = selector.select(30 * SLOWNESS)
            assert ready, f"{len(selector.get_map())} are not answered"
            for key, _ in ready:
                selector.unregister(key.fileobj)
                with key.data as peer:
                    yield peer.json()
