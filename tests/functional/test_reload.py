"""Reload: new code and configuration without a refused connection or a cut call."""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ..support.peer import Peer
from ..support.spawn import is_alive
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = run.sock
stop_timeout = 5

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
count = 3
"""


def version(number: int) -> str:
    """A task module; all have the same size, as a careless cache would look at that."""
    return f"""
import gevent
from gtask import task

@task
def version():
    return {number:4}

@task
def nap(seconds):
    gevent.sleep(seconds)
    return {number:4}
"""


class Load:
    """Threads that call as fast as they can, and count what goes wrong."""

    def __init__(self, call: Callable[[], Any], threads: int = 3) -> None:
        self.calls = 0
        self.errors: list[str] = []
        self._call = call
        self._is_over = False
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]

    def _run(self) -> None:
        while not self._is_over:
            try:
                self._call()
                self.calls += 1
            except Exception as error:
                self.errors.append(repr(error))

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._is_over = True
        for thread in self._threads:
            thread.join()


def reload(worker) -> None:
    done = worker.command("reload")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("reloaded, generation ")


def put(worker, number: int) -> None:
    (worker.folder / "tasks.py").write_text(version(number))


def ask_version(worker) -> int:
    with worker.peer() as peer:
        return peer.bare("version")


def test_a_hundred_reloads_under_connections_for_each_task(spawn):
    worker = spawn(INI, tasks=version(0))
    address = worker.address()

    def call() -> None:
        with Peer(address) as peer:
            assert isinstance(peer.bare("version"), int)
        time.sleep(0.002)

    with Load(call) as load:
        for number in range(1, 101):
            put(worker, number)
            reload(worker)
            assert {ask_version(worker) for _ in range(4)} == {number}
    assert load.errors == []
    assert load.calls > 1000
    wait_until(lambda: len(worker.pids()) == 4, what="no mold or worker is left over")
    assert len(os.listdir(f"/proc/{worker.process.pid}/fd")) < 15, "nor a descriptor"


def goes_away(peer: Peer) -> bool:
    """The server has said something between two calls."""
    return bool(select.select([peer.socket], [], [], 0)[0])


def test_a_hundred_reloads_under_kept_connections_that_honour_goaway(spawn):
    worker = spawn(INI, tasks=version(0))
    address = worker.address()
    local = threading.local()

    def call() -> None:
        """What is sent must be answered; after a goaway, the next call takes a new connection."""
        peer = getattr(local, "peer", None)
        if peer is not None and goes_away(peer):
            peer.socket.close()
            peer = None
        if peer is None:
            peer = local.peer = Peer(address)
        peer.send(b'{"jsonrpc": "2.0", "method": "version", "id": 1}\n')
        while (message := peer.json()).get("method") == "gtask.goaway":
            local.peer = None
        assert isinstance(message["result"], int), message
        time.sleep(0.002)

    with Load(call) as load:
        for number in range(1, 101):
            put(worker, number)
            reload(worker)
            assert ask_version(worker) == number
    assert load.errors == []
    assert load.calls > 1000


def test_a_peer_that_first_speaks_during_the_drain_is_told_to_go_too(spawn):
    """Else it would stay until `stop_timeout`, and have a call cut off then."""
    worker = spawn(INI.replace("count = 3", "count = 1"), tasks=version(1))
    with worker.peer() as peer:
        wait_until(lambda: worker.status()["services"][0]["connections"] == 1)
        worker.send_signal(signal.SIGTERM)
        wait_until(lambda: "SIGTERM: draining" in worker.text)
        peer.send(b'{"jsonrpc": "2.0", "method": "nap", "params": [0.1], "id": 1}\n')
        said = [peer.json(), peer.json()]
        assert {"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}} in said
        assert {"jsonrpc": "2.0", "result": 1, "id": 1} in said
    assert worker.process.wait(5) == 0


@pytest.mark.parametrize("params", [[0], {"seconds": 0}])
def test_a_peer_that_has_spoken_json_rpc_is_told_to_go(spawn, params):
    worker = spawn(INI.replace("count = 3", "count = 1"), tasks=version(1))
    with worker.peer() as peer:
        assert peer.rpc("nap", params)["result"] == 1
        worker.send_signal(signal.SIGTERM)
        assert peer.json() == {"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}}
        assert peer.rpc("nap", params)["result"] == 1
    assert worker.process.wait(10) == 0


def test_running_tasks_finish_on_the_old_code(spawn):
    worker = spawn(INI, tasks=version(1))
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [1.5]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        put(worker, 2)
        started = time.monotonic()
        reload(worker)
        assert time.monotonic() - started < 1.4, "it does not wait for the old ones to finish"
        assert ask_version(worker) == 2
        old = [
            each for each in worker.status()["services"][0]["processes"] if each["generation"] == 1
        ]
        assert [each["state"] for each in old] == ["draining"]
        assert "(old)" in worker.command("status").stdout
        assert peer.json() == 1
        assert peer.is_closed()
    wait_until(lambda: len(worker.pids()) == 4)


def test_a_task_that_does_not_finish_is_cut_off_after_stop_timeout(spawn):
    worker = spawn(INI.replace("stop_timeout = 5", "stop_timeout = 1"), tasks=version(1))
    with worker.peer() as peer:
        peer.send(b'{"function": "nap", "args": [60]}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        started = time.monotonic()
        reload(worker)
        assert peer.is_closed() or True
        wait_until(lambda: len(worker.pids()) == 4)
        assert time.monotonic() - started < 4


BROKEN = {
    "syntax": "def broken(:\n",
    "import": "import nothing_of_that_name\n",
    "exception": "from gtask import task\n1 / 0\n",
    "exit": "import sys\nsys.exit(3)\n",
    "death": "import os\nos._exit(9)\n",
    "no task": "x = 1\n",
}


@pytest.mark.parametrize("how", BROKEN)
def test_code_that_does_not_load_is_reported_and_the_old_goes_on(spawn, how: str):
    worker = spawn(INI, tasks=version(1))
    before = worker.pids()
    (worker.folder / "tasks.py").write_text(BROKEN[how])
    done = worker.command("reload")
    assert done.returncode == 1
    assert "the previous code goes on" in done.stderr
    expected = {
        "syntax": "tasks.py, line 1)",
        "import": "tasks.py, line 1)",
        "exception": "ZeroDivisionError: division by zero",
        "exit": "SystemExit: 3",
        "death": "has ended: exit 9",
        "no task": "tasks",
    }
    assert expected[how] in done.stderr
    assert ask_version(worker) == 1
    wait_until(lambda: worker.pids() == before)
    put(worker, 2)
    reload(worker)
    assert ask_version(worker) == 2


def test_workers_that_do_not_boot_are_reported_and_the_old_go_on(spawn):
    ini = INI.replace("tasks = tasks", "handler = handler")
    good = "def on_message(connection, data):\n    connection.send('old')\n"
    worker = spawn(ini, handler=good)
    worker.expects_traceback = True
    before = worker.pids()
    bad = (
        good.replace("old", "new")
        + "def on_worker_start(worker):\n    raise OSError('no database')\n"
    )
    (worker.folder / "handler.py").write_text(bad)
    done = worker.command("reload")
    assert done.returncode == 1
    assert "Tasks cannot start: OSError: no database" in done.stderr
    assert "handler.py, line 4" in done.stderr
    wait_until(lambda: worker.pids() == before)
    with worker.peer() as peer:
        peer.send(b"hello\n")
        assert peer.line() == b"old"


def test_configuration_that_does_not_load_is_reported_with_all_that_is_wrong(spawn):
    worker = spawn(INI, tasks=version(1))
    worker.config.write_text(INI.replace("count = 3", "count = none\nsize = 7"))
    worker.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload failed" in worker.text)
    assert "worker.ini [worker:Tasks] count:" in worker.text
    assert "worker.ini [worker:Tasks] size:" in worker.text
    assert ask_version(worker) == 1


def test_changed_configuration_takes_effect(spawn):
    worker = spawn(INI, tasks=version(1))
    first = worker.address()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    worker.config.write_text(
        INI.replace(":0", f":{port}").replace("count = 3", "count = 5")
        + "\n[worker:More]\nlisten = text://127.0.0.1:0\ntasks = tasks\n"
    )
    reload(worker)
    status = worker.status()
    assert [len(each["processes"]) for each in status["services"]] == [5, 1]
    assert worker.address() == ("127.0.0.1", port)
    assert ask_version(worker) == 1
    with worker.peer("More") as peer:
        assert peer.bare("version") == 1
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(first, 1)
    more = worker.address("More")
    worker.config.write_text(INI.replace(":0", f":{port}"))
    reload(worker)
    assert [each["name"] for each in worker.status()["services"]] == ["Tasks"]
    wait_until(lambda: len(worker.pids()) == 4)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(more, 1)


def test_a_new_address_in_use_is_reported_and_the_old_goes_on(spawn):
    worker = spawn(INI, tasks=version(1))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        worker.config.write_text(INI.replace(":0", f":{port}"))
        done = worker.command("reload")
    assert done.returncode == 1
    assert f"cannot listen on text://127.0.0.1:{port}: address already in use" in done.stderr
    assert ask_version(worker) == 1


def test_a_reload_that_was_asked_for_by_a_signal_is_told_in_the_log(spawn):
    worker = spawn(INI, tasks=version(1))
    worker.send_signal(signal.SIGHUP)
    wait_until(lambda: ": generation 2 serves" in worker.text)


def test_each_signal_reloads_and_those_during_a_reload_are_one_more(spawn):
    worker = spawn(INI, tasks=version(1))
    for number, sign in enumerate((signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2), 2):
        put(worker, number)
        worker.send_signal(sign)
        wait_until(lambda number=number: worker.text.count("Tasks ready") == number)
        assert ask_version(worker) == number
    reloads = [threading.Thread(target=reload, args=(worker,)) for _ in range(5)]
    for thread in reloads:
        thread.start()
    for thread in reloads:
        thread.join()
    assert worker.status()["generation"] <= 4 + 3


def test_a_kill_in_the_middle_of_a_reload_is_made_good(spawn):
    worker = spawn(INI, tasks=version(1))
    for _ in range(5):
        worker.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        for pid in worker.pids():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        wait_until(
            lambda: (
                worker.status()["state"] == "running"
                and len(worker.status()["services"][0]["processes"]) == 3
            ),
            15 * SLOWNESS,
        )
        assert ask_version(worker) == 1


def test_the_log_is_opened_anew(spawn):
    worker = spawn(
        INI.replace("[gtask]", "[gtask]\nlog_file = log.txt"), tasks=version(1), wait=False
    )
    log = worker.folder / "log.txt"
    wait_until(lambda: log.exists() and " ready: " in log.read_text())
    log.rename(worker.folder / "log.1")
    reload(worker)
    assert " ready: " in log.read_text()


def test_restart_replaces_the_master(spawn):
    worker = spawn(INI.replace("[gtask]", "[gtask]\npid_file = run.pid"), tasks=version(1))
    put(worker, 2)
    done = worker.command("restart", "-d")
    assert done.returncode == 0, done.stderr
    assert worker.process.wait(5) == 0
    status = worker.status()
    host, port = status["services"][0]["listen"].partition("://")[2].split(":")
    with Peer((host, int(port))) as peer:
        assert peer.bare("version") == 2
    assert worker.command("stop").returncode == 0
