"""A shared client through a proxy that cuts: every call ends exactly once, and rightly.

`GTASK_TEST_SECONDS=60` lets the long test run as long as that; `GTASK_TEST_SEED` draws other fates.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from ..support.history import History
from ..support.proxy import CuttingProxy
from ..support.spawn import ROOT

MODULE = """
import time
from gtask import task

@task
def echo(key, nap=0):
    if nap:
        time.sleep(nap)
    return key
"""
INI = "[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = echoes\ncount = 2\n"

# The client in a process of its own, monkey-patched, as in the apps that use it. The proxy is not.
CALLERS = """
from gevent import monkey
monkey.patch_all()
import json, random, resource, sys, time, gevent
sys.path.insert(0, ROOT)
from gtask import TaskClient
from tests.support.history import History

url, greenlets, seconds, seed = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
client, history, stop = TaskClient([url], max_pending=10 * greenlets), History(), time.monotonic() + seconds
rss = []

def work(number):
    chance = random.Random(seed * 100003 + number)
    turn = 0
    while time.monotonic() < stop:
        key = f"{number}-{turn}"
        turn += 1
        history.invoke(key)
        nap = chance.choice([0, 0, 0, 0.001, 0.01])
        try:
            history.ok(key, client.call("echo", {"key": key, "nap": nap}, timeout=2).get())
        except Exception as error:
            history.fail(key, error)
        gevent.sleep(chance.random() * 0.05)

def watch():
    while time.monotonic() < stop:
        gevent.sleep(seconds / 10)
        with open("/proc/self/statm") as statm:
            rss.append(int(statm.read().split()[1]) * 4096)

watcher = gevent.spawn(watch)
gevent.joinall([gevent.spawn(work, number) for number in range(greenlets)], raise_error=True)
client.close()
watcher.join()
print(json.dumps({"problems": history.check()[:20], "outcomes": history.outcomes, "rss": rss}))
"""


def run_callers(url: str, greenlets: int, seconds: float, seed: int) -> dict:
    import json

    done = subprocess.run(
        [sys.executable, "-c", f"ROOT = {str(ROOT)!r}\n{CALLERS}", url, str(greenlets), str(seconds), str(seed)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def seed() -> int:
    chosen = int(os.environ.get("GTASK_TEST_SEED") or random.randrange(2**31))
    print(f"GTASK_TEST_SEED={chosen}")  # pytest shows it when the test fails
    return chosen


@pytest.mark.parametrize(
    "fate", ["pass", "delay", "split", "throttle", "reset", "half-close", "black-hole"]
)
def test_under_each_fate_every_call_ends_once(spawn, seed, fate):
    worker = spawn(INI, echoes=MODULE)
    with CuttingProxy(worker.address(), [fate], seed) as proxy:
        result = run_callers(proxy.url, 20, 2.5, seed)
    assert proxy.met[fate]
    assert result["problems"] == []
    if fate in ("pass", "delay", "split"):
        assert set(result["outcomes"]) == {"ok"}
    elif fate == "black-hole":
        assert "ok" not in result["outcomes"]


def test_a_thousand_greenlets_share_a_client_through_all_of_it(spawn, seed):
    seconds = float(os.environ.get("GTASK_TEST_SECONDS", "6"))
    fates = ["pass", "pass", "delay", "split", "throttle", "reset", "half-close", "black-hole"]
    worker = spawn(INI, echoes=MODULE)
    with CuttingProxy(worker.address(), fates, seed) as proxy:
        result = run_callers(proxy.url, 1000, seconds, seed)
    assert result["problems"] == []
    assert result["outcomes"]["ok"] > 1000
    assert result["rss"][-1] < 1.5 * result["rss"][len(result["rss"]) // 3], result["rss"]


def test_the_checker_finds_what_is_wrong():
    history = History()
    for key in ("fine", "lost", "doubled", "swapped"):
        history.invoke(key)
    history.ok("fine", "fine")
    history.ok("doubled", "doubled")
    history.fail("doubled", ValueError())
    history.ok("swapped", "fine")
    history.ok("phantom", "phantom")
    problems = " ".join(history.check())
    for key in ("lost", "doubled", "swapped", "phantom"):
        assert f"{key}: " in problems
    assert "fine: " not in problems
