"""The shipped HAProxy recipe with a real HAProxy: hosts are killed, drained and added under load."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator

import gevent
import gevent.event
import pytest

from gtask import AsyncTcpConnection, TaskClient, wait

from ..support.spawn import ROOT, SpawnedWorker, is_alive
from ..support.wait import SLOWNESS, wait_until
from .test_client import INI, TASKS, Tally


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Balancer:
    """A real HAProxy on conf/haproxy.cfg with other addresses."""

    def __init__(self, folder, servers: list[SpawnedWorker]) -> None:
        assert shutil.which("haproxy"), "HAProxy is missing: apt-get install haproxy"
        self.port = free_port()
        self.url = f"text://127.0.0.1:{self.port}"
        self.admin = str(folder / "admin.sock")
        text = (ROOT / "conf" / "haproxy.cfg").read_text()
        text, binds = re.subn(r"bind :12345", f"bind 127.0.0.1:{self.port}", text)
        text, admins = re.subn(r"/run/haproxy-gtask.sock", self.admin, text)
        text, hosts = re.subn(r"\n    server host.*", "", text)
        assert (binds, admins, hosts) == (1, 1, 2)
        for number, server in enumerate(servers, 1):
            address = f"127.0.0.1:{server.address()[1]}"
            text += f"    server host{number} {address}\n"
        config = folder / "haproxy.cfg"
        config.write_text(text)
        with (folder / "haproxy.log").open("wb") as log:
            self.process = subprocess.Popen(
                ["haproxy", "-db", "-f", str(config)], stdout=log, stderr=log
            )
        try:
            wait_until(lambda: os.path.exists(self.admin), what="haproxy")
            wait_until(lambda: all(state == "UP" for state in self.states().values()))
        except BaseException:
            self.close()
            raise

    def ask(self, command: str) -> str:
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(self.admin)
            admin.sendall(command.encode() + b"\n")
            answer = b""
            while data := admin.recv(65536):
                answer += data
            return answer.decode()

    def states(self) -> dict[str, str]:
        rows = [line.split(",") for line in self.ask("show stat").splitlines()[1:] if line]
        names = re.compile(r"host\d+")
        return {row[1]: row[17] for row in rows if row[0] == "workers" and names.fullmatch(row[1])}

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


@pytest.fixture
def balance(tmp_path) -> Iterator:
    with contextlib.ExitStack() as stack:

        def start(servers):
            return stack.enter_context(contextlib.closing(Balancer(tmp_path, servers)))

        yield start


class Load:
    """Calls through the balancer all the time, on kept connections and with one for each task."""

    def __init__(self, url: str, **options) -> None:
        self.kept, self.single = Tally(), Tally()
        self.pids: set[int] = set()
        self._url = url
        self._numbers = iter(range(10**9))
        self._is_over = False
        self._client = TaskClient(url, connections=6, **options)
        self._greenlets = [gevent.spawn(self._call) for _ in range(10)]
        self._greenlets += [gevent.spawn(self._connect) for _ in range(5)]

    def _call(self) -> None:
        while not self._is_over:
            number = next(self._numbers)
            args = ("nap", [0.02, number]) if number % 5 == 0 else ("echo", [number])
            wait([self._client.call(*args, timeout=20, **self.kept.callbacks(number))])

    def _connect(self) -> None:
        while not self._is_over:
            number = next(self._numbers)
            ends = self.single.callbacks(number)
            done = gevent.event.Event()
            task = AsyncTcpConnection(self._url)
            answers = []
            task.on_message = lambda task, text, answers=answers: (
                answers.append(text),
                task.close(),
            )
            task.on_close = lambda task, done=done: done.set()
            task.send(f'{{"function": "nap", "args": [0.01, {number}]}}')
            task.connect()
            assert done.wait(20)
            if answers:
                ends["on_result"](int(answers[0]))
            else:
                ends["on_error"](EOFError("closed without an answer"))

    def run_for(self, seconds: float) -> None:
        gevent.sleep(seconds)

    def wait_until(self, condition, seconds: float = 15.0) -> None:
        with gevent.Timeout(seconds * SLOWNESS):
            while not condition():
                gevent.sleep(0.02)

    def end(self) -> None:
        self._is_over = True
        gevent.joinall(self._greenlets, raise_error=True)
        gevent.sleep(0.05)
        self._client.close()
        for tally in (self.kept, self.single):
            assert len(tally.ends) > 50
            assert set(tally.ends.values()) == {1}
            assert not tally.wrong


def served(server: SpawnedWorker) -> int:
    return sum(process["done"] for process in server.status()["services"][0]["processes"])


def test_the_recipe_is_valid_as_it_is_shipped():
    config = ROOT / "conf" / "haproxy.cfg"
    done = subprocess.run(["haproxy", "-c", "-f", str(config)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_drained_host_costs_no_error(spawn, balance):
    servers = [spawn(INI.format(count=2), things=TASKS) for _ in range(2)]
    balancer = balance(servers)
    load = Load(balancer.url)
    load.run_for(0.5)
    servers[0].process.send_signal(signal.SIGTERM)
    load.wait_until(lambda: servers[0].process.poll() is not None)
    load.wait_until(lambda: balancer.states()["host1"] == "DOWN")
    load.run_for(0.5)
    load.end()
    assert servers[0].process.returncode == 0
    assert load.kept.errors == []
    assert load.single.errors == []


def test_a_killed_host_costs_only_what_it_was_doing(spawn, balance):
    servers = [spawn(INI.format(count=2), things=TASKS) for _ in range(2)]
    balancer = balance(servers)
    load = Load(balancer.url, retries=5)
    load.run_for(0.5)
    host = (servers[0].process.pid, *servers[0].pids())
    for pid in host:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
    # The callers, in this thread, are held up until none of the host's processes takes connections.
    wait_until(lambda: not any(map(is_alive, host)), what="the host's end")
    load.wait_until(lambda: balancer.states()["host1"] == "DOWN")
    load.run_for(0.5)
    load.end()
    assert load.kept.errors == []
    assert len(load.single.errors) <= 5


def test_a_host_is_added_and_one_taken_out_by_hand(spawn, balance):
    servers = [spawn(INI.format(count=2), things=TASKS) for _ in range(2)]
    balancer = balance(servers[:1])
    load = Load(balancer.url, max_age=0.3)
    load.run_for(0.3)
    checks = "check inter 1s fastinter 250ms fall 2 rise 1"
    address = f"127.0.0.1:{servers[1].address()[1]}"
    assert "registered" in balancer.ask(f"add server workers/host2 {address} {checks}")
    balancer.ask("enable server workers/host2")
    balancer.ask("enable health workers/host2")
    load.wait_until(lambda: balancer.states()["host2"] == "UP")
    load.wait_until(lambda: served(servers[1]) > 100)
    balancer.ask("set server workers/host1 state drain")
    load.run_for(1)
    before = served(servers[0])
    load.run_for(0.3)
    assert served(servers[0]) <= before + 5
    load.end()
    assert load.kept.errors == []
    assert load.single.errors == []


def test_full_hosts_are_busy_and_let_callers_wait(spawn, balance):
    ini = INI.format(count=1) + "concurrency = 1\n"
    servers = [spawn(ini, things=TASKS) for _ in range(2)]
    balancer = balance(servers)
    with TaskClient(balancer.url, dialect="bare", connections=20, timeout=30) as client:
        occupied = [client.call("nap", [7, "occupied"]) for _ in range(2)]
        late = [client.call("echo", [number]) for number in range(10)]
        seen = set()
        with gevent.Timeout(5, False):  # five checks
            while True:
                seen |= set(balancer.states().values())
                gevent.sleep(0.1)
        assert seen <= {"UP", "UP 1/2"}, seen
        assert not any(call.done for call in occupied)
        assert [call.get() for call in late] == list(range(10))
        assert [call.get() for call in occupied] == ["occupied"] * 2


def test_a_stuck_worker_is_found_by_the_check(spawn, balance):
    servers = [spawn(INI.format(count=1), things=TASKS) for _ in range(2)]
    balancer = balance(servers)
    (service,) = servers[0].status()["services"]
    (process,) = service["processes"]
    os.kill(process["pid"], signal.SIGSTOP)
    try:
        wait_until(lambda: balancer.states()["host1"] == "DOWN", 15)
    finally:
        os.kill(process["pid"], signal.SIGCONT)
    wait_until(lambda: balancer.states()["host1"] == "UP", 15)
