"""Starts and reloads that hang: they say where, and nobody has to wait for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ..support.spawn import ROOT, is_alive
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = run.sock
stop_timeout = 5
boot_timeout = 2

[worker:Web]
listen = text://127.0.0.1:0
handler = app
count = 2
"""

GOOD = """
def on_message(connection, data):
    connection.send('{}')
"""
HANGS = {
    "import": "import time\ntime.sleep(1000)\n",
    "import, in C": "pow(3, 10**9)\n",
    "on_worker_start": "def on_worker_start(worker):\n    import time\n    time.sleep(1000)\n",
    "on_worker_start, in C": "def on_worker_start(worker):\n    pow(3, 10**9)\n",
    "on_worker_start, for nobody": (
        "import gevent.event\ndef on_worker_start(worker):\n    gevent.event.Event().wait()\n"
    ),
}
hangs = pytest.mark.parametrize("how", HANGS)


def put(worker, text: str) -> None:
    (worker.folder / "app.py").write_text(text)


def which(worker) -> str:
    with worker.peer("Web") as peer:
        peer.send(b"which\n")
        return peer.line().decode()


@hangs
def test_a_start_that_hangs_ends_and_says_where(spawn, how: str):
    worker = spawn(INI, wait=False, app=GOOD.format("one") + HANGS[how])
    worker.expects_traceback = True
    assert worker.process.wait(20 * SLOWNESS) == 1
    assert "boot_timeout (2 s)" in worker.text
    assert "app.py" in worker.text
    if "in C" not in how:
        assert "it hangs in " in worker.text
        assert "app.py, line " in worker.text.strip().splitlines()[-1]


@hangs
def test_a_reload_that_hangs_is_given_up_and_the_old_goes_on(spawn, how: str):
    worker = spawn(INI, app=GOOD.format("one"))
    worker.expects_traceback = True
    put(worker, GOOD.format("two") + HANGS[how])
    done = worker.command("reload")
    assert done.returncode == 1
    assert "the previous code goes on" in done.stderr
    assert "boot_timeout (2 s)" in done.stderr
    assert "app.py" in worker.text, "the stacks"
    assert which(worker) == "one"
    put(worker, GOOD.format("three"))
    assert worker.command("reload").returncode == 0
    assert which(worker) == "three"


@pytest.mark.parametrize("how", ["import", "on_worker_start"])
def test_a_newer_reload_replaces_one_that_hangs(spawn, how: str):
    worker = spawn(INI.replace("boot_timeout = 2", "boot_timeout = 0"), app=GOOD.format("one"))
    put(worker, GOOD.format("two") + "open('begun', 'w').close()\n" + HANGS[how])
    first = subprocess.Popen(
        [sys.executable, "-m", "gtask", "-c", "worker.ini", "reload"],
        cwd=worker.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_until((worker.folder / "begun").exists)
    put(worker, GOOD.format("three"))
    time.sleep(0.5)
    assert first.poll() is None
    done = worker.command("reload")
    assert (done.returncode, done.stdout) == (0, "reloaded, generation 3\n")
    said, _ = first.communicate(timeout=10 * SLOWNESS)
    assert said == "reloaded, generation 3; it has replaced the one that you asked for\n"
    assert which(worker) == "three"
    assert worker.status()["state"] == "running"


@pytest.mark.parametrize("how", ["import", "on_worker_start"])
def test_who_dies_while_a_reload_hangs_is_replaced(spawn, how: str):
    worker = spawn(INI.replace("boot_timeout = 2", "boot_timeout = 60"), app=GOOD.format("one"))
    put(worker, GOOD.format("two") + HANGS[how])
    worker.send_signal(signal.SIGHUP)
    wait_until(lambda: worker.status()["state"] == "reloading")
    if how == "on_worker_start":
        wait_until(lambda: worker.status()["generation"] == 2)
    time.sleep(1)  # older than a process that dies young
    serving = ready(worker)
    for pid in serving:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: len(ready(worker) - serving) == 2)
    assert which(worker) == "one"


def ready(worker) -> set[int]:
    processes = worker.status()["services"][0]["processes"]
    return {each["pid"] for each in processes if each["state"] == "ready"}


@hangs
def test_a_start_that_is_stopped_ends_at_once(spawn, how: str):
    ini = INI.replace("boot_timeout = 2", "boot_timeout = 60").replace("5", "60", 1)
    worker = spawn(ini, wait=False, app=GOOD.format("one") + HANGS[how])
    wait_until(lambda: len(worker.pids()) >= (1 if how.startswith("import") else 3))
    time.sleep(0.3)
    tree = worker.pids()
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 2 * SLOWNESS
    assert not any(is_alive(pid) for pid in tree)


@pytest.mark.parametrize("how", ["import", "import, in C"])
def test_a_check_of_what_hangs_ends(spawn, how: str):
    worker = spawn(INI, wait=False, app=GOOD.format("one"))
    worker.stop(signal.SIGKILL)
    put(worker, GOOD.format("one") + HANGS[how])
    done = worker.command("check")
    assert done.returncode == 78
    assert "boot_timeout (2 s)" in done.stderr


def test_a_stop_during_a_reload_is_a_clean_one(spawn):
    worker = spawn(INI.replace("count = 2", "count = 10"), app=GOOD.format("one"))
    for number in range(4):
        worker.send_signal(signal.SIGHUP)
        time.sleep(0.1 + 0.1 * number)
        assert worker.stop() == 0, worker.text
        assert "cut off" not in worker.text
        worker = spawn(INI.replace("count = 2", "count = 10"), app=GOOD.format("one"))


def test_a_storm_of_reloads_ends_with_the_newest_code(spawn):
    worker = spawn(INI, app=GOOD.format(0))
    for number in range(1, 41):
        put(worker, GOOD.format(number))
        worker.send_signal(signal.SIGHUP)
        time.sleep(0.05)
        assert which(worker).isdigit()
    wait_until(lambda: worker.status()["state"] == "running" and which(worker) == "40", 30)
    wait_until(lambda: len(worker.pids()) == 3)
