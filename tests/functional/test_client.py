"""`TaskClient` with real workers that are killed, stopped, drained and reloaded under it."""

from __future__ import annotations

import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import gevent
import pytest
from gevent.pool import Pool

from gtask import TaskClient, TaskTimedOut, WorkerLost, as_completed, wait
from gtask.errors import BadArguments, TaskCancelled, TaskFailed, UnknownTask

from ..support.history import History
from ..support.proxy import CuttingProxy
from ..support.spawn import ROOT, is_alive
from ..support.wait import SLOWNESS, wait_until

TASKS = """
import os, time
from gtask import current_task, task

@task
def echo(value):
    return value

@task
def add(a, b):
    return a + b

@task
def nap(seconds, value=None):
    time.sleep(seconds)
    return value

@task
def pid():
    return os.getpid()

@task
def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

@task
def count(total):
    for number in range(total):
        current_task().progress(number + 1, total, f"step {number + 1}")
    return total

@task
def fail():
    raise ValueError("값")

@task
def slow_cancel(path):
    open(path + ".begun", "w").close()
    try:
        time.sleep(30)
    finally:
        open(path, "w").close()
"""
INI = """
[gtask]
pid_file = worker.pid
control = worker.sock
stop_timeout = 10
[worker:Tasks]
listen = text://127.0.0.1:0
count = {count}
tasks = things
"""


class Tally:
    """Counts the ends of numbered calls, whose right result is their number."""

    def __init__(self) -> None:
        self.ends: dict[int, int] = {}
        self.wrong: list[object] = []
        self.errors: list[Exception] = []

    def callbacks(self, number: int) -> dict[str, object]:
        def on_result(result: object) -> None:
            self.ends[number] = self.ends.get(number, 0) + 1
            if result != number:
                self.wrong.append((number, result))

        def on_error(error: Exception) -> None:
            self.ends[number] = self.ends.get(number, 0) + 1
            self.errors.append(error)

        return {"on_result": on_result, "on_error": on_error}


wait_for = functools.partial(wait_until, seconds=20, sleep=gevent.sleep)


def worker_pids(server):
    (service,) = server.status()["services"]
    return [process["pid"] for process in service["processes"]]


@pytest.fixture(scope="module")
def shared(module_spawn):
    server = module_spawn(INI.format(count=2), things=TASKS)
    server.expects_traceback = True
    return server


@pytest.fixture(scope="module")
def client(shared):
    with TaskClient(shared.url()) as client:
        yield client


def test_results_and_errors(client):
    assert client.call("add", {"a": 1, "b": 2}).get() == 3
    assert client.call("add", [1, 2]).get() == 3
    assert client.call("echo", ["작업 완료"]).get() == "작업 완료"
    with pytest.raises(UnknownTask):
        client.call("nope").get()
    with pytest.raises(BadArguments, match="missing b"):
        client.call("add", [1]).get()
    with pytest.raises(TaskFailed, match="ValueError: 값") as caught:
        client.call("fail").get()
    assert caught.value.data == {"type": "ValueError", "message": "값"}
    assert client.call("gtask.health").get()["status"] == "ready"


def test_large_arguments_and_results(client):
    texts = ["x" * size for size in (0, 1, 65_535, 65_536, 1_000_000, 5_000_000)]
    calls = [client.call("echo", [text]) for text in texts]
    assert [call.get() == text for call, text in zip(calls, texts, strict=True)] == [True] * 6


def test_progress(client):
    seen = []
    call = client.call("count", [50], on_progress=lambda *report: seen.append(report))
    assert call.get() == 50
    assert seen == [(number, 50, f"step {number}") for number in range(1, 51)]


def test_timeouts_hold_on_both_sides(client, shared):
    started = time.monotonic()
    with pytest.raises(TaskTimedOut):
        client.call("nap", [30], timeout=0.2).get()
    assert time.monotonic() - started < 2 * SLOWNESS
    wait_for(lambda: not client.call("gtask.health").get()["running"])


def test_cancel_stops_the_task(client, tmp_path):
    call = client.call("slow_cancel", [str(tmp_path / "ended")])
    wait_for((tmp_path / "ended.begun").exists)
    assert call.cancel()
    with pytest.raises(TaskCancelled):
        call.get()
    wait_for((tmp_path / "ended").exists)


def test_calls_overtake_each_other(client):
    slow = client.call("nap", [0.3, "slow"])
    quick = [client.call("echo", [number]) for number in range(100)]
    assert wait(quick) == quick
    assert not slow.done
    assert [call.get() for call in as_completed([slow])] == ["slow"]


def test_bare_dialect(shared):
    with TaskClient(shared.url(), dialect="bare", connections=5) as client:
        calls = [client.call("nap", [0.05, number]) for number in range(20)]
        assert [call.get() for call in calls] == list(range(20))
        with pytest.raises(BadArguments, match="missing b"):
            client.call("add", [1]).get()
    with TaskClient(shared.url(), dialect="bare", keep_connections=False) as client:
        calls = [client.call("echo", [number]) for number in range(100)]
        assert [call.get() for call in calls] == list(range(100))


@pytest.mark.parametrize("retries", [0, 8])
def test_workers_killed_again_and_again(spawn, retries):
    server = spawn(INI.format(count=4), things=TASKS)
    server.expects_traceback = True
    tally = Tally()
    total = 3000
    with TaskClient(server.url(), retries=retries) as client:
        pool = Pool(50)

        def one(number: int) -> None:
            function, args = ("nap", [0.1, number]) if number % 2 else ("echo", [number])
            call = client.call(function, args, timeout=30, **tally.callbacks(number))
            wait([call])

        def kill() -> None:
            for count in range(200, total, 200):
                wait_for(lambda: len(tally.ends) >= count)  # noqa: B023  (waited for here)
                # A worker that this client is connected to: any other may have nothing to lose.
                os.kill(client.call("pid").get(), signal.SIGKILL)

        killer = gevent.spawn(kill)
        started = time.monotonic()
        number = 0
        while number < total:
            pool.spawn(one, number)
            number += 1
        pool.join()
        seconds = time.monotonic() - started
        killer.kill()
        wait_for(lambda: len(tally.ends) == total)
    assert sorted(tally.ends) == list(range(total))
    assert set(tally.ends.values()) == {1}
    assert not tally.wrong
    assert seconds > 2
    if retries:
        assert not tally.errors
    else:
        assert tally.errors
        assert {type(error) for error in tally.errors} == {WorkerLost}


def load(client, tally, until):
    """Call without a pause, from 20 greenlets, until `until()`; returns how often."""
    numbers = iter(range(10**9))

    def run() -> None:
        while not until():
            number = next(numbers)
            args = ["nap", [0.02, number]] if number % 5 == 0 else ["echo", [number]]
            wait([client.call(*args, timeout=20, **tally.callbacks(number))])

    gevent.joinall([gevent.spawn(run) for _ in range(20)], raise_error=True)
    count = next(numbers)
    wait_for(lambda: len(tally.ends) == count)
    return count


def wait_for_more(tally, count):
    """Until so many more calls have ended."""
    count += len(tally.ends)
    wait_for(lambda: len(tally.ends) >= count)


def test_reloads_lose_nothing(spawn):
    server = spawn(INI.format(count=2), things=TASKS)
    tally = Tally()
    done = []

    def reload() -> None:
        try:
            for _ in range(5):
                command = [sys.executable, "-m", "gtask", "-c", "worker.ini", "reload"]
                env = {**os.environ, "PYTHONPATH": str(ROOT)}
                with subprocess.Popen(command, cwd=server.folder, env=env) as process:
                    wait_for(lambda: process.poll() is not None)
                done.append(process.returncode)
        finally:
            done.append("end")

    with TaskClient(server.url()) as client:
        before = set(worker_pids(server))
        reloader = gevent.spawn(reload)
        count = load(client, tally, lambda: "end" in done)
        reloader.get()
        assert not before & set(worker_pids(server))
    assert done == [0] * 5 + ["end"]
    assert tally.errors == []
    assert set(tally.ends.values()) == {1}
    assert len(tally.ends) == count
    assert not tally.wrong


def test_of_two_hosts_one_is_drained_and_comes_back(spawn):
    servers = [spawn(INI.format(count=2), things=TASKS) for _ in range(2)]
    tally = Tally()
    state = []

    def drain() -> None:
        try:
            wait_for_more(tally, 500)
            servers[0].process.send_signal(signal.SIGTERM)
            wait_for(lambda: servers[0].process.poll() is not None)
            state.append(servers[0].process.returncode)
            wait_for_more(tally, 500)
        finally:
            state.append("end")

    with TaskClient([server.url() for server in servers]) as client:
        drainer = gevent.spawn(drain)
        load(client, tally, lambda: "end" in state)
        drainer.get()
    assert state == [0, "end"]
    assert tally.errors == []
    assert set(tally.ends.values()) == {1}
    assert not tally.wrong


def test_of_two_hosts_one_is_killed(spawn):
    servers = [spawn(INI.format(count=2), things=TASKS) for _ in range(2)]
    tally = Tally()
    state = []

    def kill() -> None:
        try:
            wait_for_more(tally, 500)
            for pid in (servers[0].process.pid, *servers[0].pids()):
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            wait_for_more(tally, 1000)
        finally:
            state.append("end")

    with TaskClient([server.url() for server in servers], retries=3) as client:
        killer = gevent.spawn(kill)
        load(client, tally, lambda: "end" in state)
        killer.get()
    assert tally.errors == []
    assert set(tally.ends.values()) == {1}
    assert not tally.wrong


def test_a_frozen_worker_is_left_alone(spawn):
    server = spawn(INI.format(count=2), things=TASKS)
    pids = worker_pids(server)
    with TaskClient(server.url(), connections=4, connect_timeout=0.5) as client:
        wait([client.call("nap", [0.1]) for _ in range(20)])
        os.kill(pids[0], signal.SIGSTOP)
        try:
            calls = [client.call("pid", timeout=0.3) for _ in range(40)]
            wait(calls)
            assert {type(call.error) for call in calls} <= {TaskTimedOut, type(None)}
            started = time.monotonic()
            answers = [client.call("pid", timeout=5).get() for _ in range(20)]
            assert set(answers) == {pids[1]}
            assert time.monotonic() - started < 3 * SLOWNESS
        finally:
            os.kill(pids[0], signal.SIGCONT)


def test_a_thousand_greenlets_through_a_cutting_proxy(spawn):
    """Every call has one end and its own result; GTASK_TEST_SECONDS makes it run longer."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    server = spawn(INI.format(count=4), things=TASKS)
    seconds = float(os.environ.get("GTASK_TEST_SECONDS", "6"))
    until = time.monotonic() + seconds
    history = History()
    numbers = itertools.count()
    sizes = []

    def run(client: TaskClient, generator: random.Random) -> None:
        while time.monotonic() < until:
            number = next(numbers)
            text = f"{number} {'x' * generator.choice((0, 10, 1000, 20_000))}"
            history.invoke(number)

            def on_result(result: str, number: int = number, size: int = len(text)) -> None:
                key, _, padding = result.partition(" ")
                is_whole = len(result) == size and padding.count("x") == len(padding)
                history.ok(number, int(key) if is_whole else result)

            call = client.call(
                *(("nap", [0.01, text]) if number % 10 == 0 else ("echo", [text])),
                timeout=generator.choice((1, 5)),
                retries=generator.choice((0, 3)),
                on_result=on_result,
                on_error=lambda error, number=number: history.fail(number, error),
            )
            if generator.random() < 0.01:
                call.cancel()
            wait([call])

    def measure() -> None:
        while True:
            gevent.sleep(1)  # a sample each second
            sizes.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4)

    with (
        CuttingProxy(server.address(), seed=seed, after=(0, 3_000_000)) as proxy,
        TaskClient(proxy.url, connections=8, connect_timeout=0.5, patience=20, max_age=1) as client,
    ):
        meter = gevent.spawn(measure)
        greenlets = [gevent.spawn(run, client, random.Random(seed + n)) for n in range(1000)]
        gevent.joinall(greenlets, raise_error=True)
        made = next(numbers)
        wait_for(lambda: history.outcomes.total() >= made, what=f"all have ended; seed {seed}")
        meter.kill()
        assert history.check() == [], f"seed {seed}"
        (pool,) = client._pools.values()
        assert (len(pool.calls), len(pool.waiting)) == (0, 0)
        assert len(pool.connections) <= 20
    report = f"seed {seed}: {history.outcomes}, {proxy.met}, {sizes} kB"
    assert history.outcomes["ok"] > 1000, report
    assert len(proxy.met) >= 5, report
    if len(sizes) > 20:  # when histories begin to be dropped
        assert sizes[-1] < sizes[10] * 1.1, report
    server.expects_traceback = True


def test_unix_socket(spawn):
    ini = INI.format(count=1).replace("text://127.0.0.1:0", "text+unix://{}")
    path = f"/tmp/gtask-test-{os.getpid()}.sock"
    server = spawn(ini.format(path), things=TASKS)
    with TaskClient(server.url()) as client:
        assert client.call("add", [1, 2]).get() == 3


PLAIN = """
import sys
{patch}
from gtask import TaskClient, wait
client = TaskClient(sys.argv[1])
results = []
calls = [client.call("add", [n, n], on_result=results.append) for n in range(100)]
assert calls[7].get() == 14
wait(calls)
import gevent
while len(results) < 100:
    gevent.sleep(0.001)
assert sorted(results) == [2 * n for n in range(100)]
print("done")
"""


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
def test_a_plain_and_a_patched_program(shared, patch):
    command = [sys.executable, "-c", PLAIN.format(patch=patch), shared.url()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
