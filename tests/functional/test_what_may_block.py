"""docs/blocking.md, line by line: each row of its table is tried in a worker, in both kinds of task."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.wait import wait_until

DOCUMENT = ROOT / "docs" / "blocking.md"

# Each function is served twice: as NAME, and as NAME_blocking in a native thread.
MODULE = """
import asyncio, contextvars, multiprocessing, os, queue, select, selectors, smtplib, socket, sqlite3, ssl
import subprocess, sys, threading, time, urllib.request
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
import gevent
from gevent import monkey
from gtask import TaskClient, task

native_sleep = monkey.get_original("time", "sleep")
native_id = monkey.get_original("_thread", "get_ident")
fork = multiprocessing.get_context("fork")
lock, event, condition = threading.Lock(), threading.Event(), threading.Condition()
semaphore, rlock = threading.Semaphore(2), threading.RLock()
jobs, kept, executor = queue.Queue(), [], ThreadPoolExecutor(2)
local, variable = threading.local(), contextvars.ContextVar("variable", default=None)
total = 0

def both(function=None, timeout=60):
    if function is None:
        return lambda function: both(function, timeout)
    name = function.__name__
    green = task(name=name, timeout=timeout)(function)
    def native(*args):
        return function(*args)
    globals()[name + "_blocking"] = task(name=name + "_blocking", timeout=timeout, blocking=True)(native)
    return green

@task
def ticks(seconds):
    '''How often the loop turned in so many seconds, at most a hundred times a second.'''
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.01)
        count += 1
    return count

@both
def talk(port):
    with socket.create_connection(("127.0.0.1", port), timeout=20) as peer:
        return peer.recv(100).decode()

@both
def keep(port):
    kept.append(socket.create_connection(("127.0.0.1", port), timeout=20))

@both
def use(port):
    return kept[-1].recv(100).decode()

@both
def fetch(port):
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20).read()
    except Exception as error:
        return type(error).__name__

@both
def resolve():
    return socket.gethostbyname("localhost"), bool(socket.getaddrinfo("localhost", 80))

@both
def pause(seconds):
    time.sleep(seconds)
    select.select([], [], [], 0.01)
    with selectors.DefaultSelector() as selector:
        selector.select(0.01)
    return "slept"

@both
def count(many):
    global total
    for i in range(many):
        with lock, rlock, semaphore:
            before = total
            if i % 50 == 0:
                time.sleep(0.0001)
            total = before + 1
    return total

@both
def put(many):
    for i in range(many):
        jobs.put(i)
    with condition:
        condition.notify_all()
    event.set()

@both
def get(many):
    event.wait(20)
    return sum(jobs.get(timeout=20) for _ in range(many))

@both
def own(value):
    mine = threading.current_thread()
    before = getattr(local, "x", None), variable.get(), getattr(mine, "x", None)
    local.x = mine.x = value
    variable.set(value)
    return before

@both
def thread(seconds):
    ids = []
    def run():
        ids.append(native_id())
        time.sleep(seconds)
        ids.append("through")
    started = threading.Thread(target=run)
    started.start()
    if seconds > 0.1:
        kept.append(ids)
    else:
        started.join()
    return ids[0] == native_id() if ids else None

@task
def outlived():
    return kept[-1][-1]

@both
def submit(x):
    return executor.submit(lambda: x * 2).result(20)

@both
def processes(seconds):
    done = subprocess.run(["sh", "-c", f"sleep {seconds}; echo out; exit 5"], stdout=subprocess.PIPE, timeout=20)
    pid = os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "exit 6")
    return [done.returncode, done.stdout.decode(), os.system("exit 3") >> 8, os.popen("echo x").read(),
            os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]

def double(x):
    native_sleep(0.05)
    return x * 2

@both
def pools():
    with fork.Pool(2) as pool, ProcessPoolExecutor(2, mp_context=fork) as executor:
        first = pool.map(double, range(5))
        second = list(executor.map(double, range(5)))
    queue = fork.Queue()
    process = fork.Process(target=queue.put, args=(7,))
    process.start()
    got = queue.get(timeout=20)
    process.join(20)
    return [first, second, got, process.exitcode]

@both
def forked():
    pid = os.fork()
    if pid == 0:
        return "child"
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

async def coroutine(seconds):
    await asyncio.sleep(seconds)
    process = await asyncio.create_subprocess_exec("sh", "-c", "exit 4")
    return await process.wait(), await asyncio.to_thread(lambda: 5)

@both
def run_coroutine(seconds):
    return asyncio.run(coroutine(seconds))

@both
def spawn(seconds):
    return gevent.spawn(lambda: time.sleep(seconds) or 8).get()

@both
def call(url):
    with TaskClient([url]) as client:
        return client.call("ticks", [0.05]).get() > 0

@both
def compute(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        sum(range(1000))

@both
def query(milliseconds):
    with sqlite3.connect(":memory:") as connection:
        connection.create_function("nap", 1, lambda ms: native_sleep(ms / 1000) or 9)
        return connection.execute("select nap(?)", (milliseconds,)).fetchone()[0]

def connect(driver, port):
    try:
        if driver == "pymysql":
            import pymysql
            pymysql.connect(host="127.0.0.1", port=port, connect_timeout=2, read_timeout=2)
        elif driver == "psycopg":
            import psycopg
            psycopg.connect(host="127.0.0.1", port=port, connect_timeout=2, user="u", dbname="d")
        else:
            import psycopg2
            psycopg2.connect(host="127.0.0.1", port=port, connect_timeout=2, user="u", dbname="d")
    except Exception as error:
        return type(error).__name__

@both
def database(driver, port):
    return connect(driver, port)

@both
def read_pipe(seconds):
    reader, writer = os.pipe()
    process = subprocess.Popen(["sh", "-c", f"sleep {seconds}; echo x"], stdout=writer)
    os.close(writer)
    data = os.read(reader, 10).decode()
    process.wait()
    with open(__file__) as file:
        return data, file.readline()

@both
def keep_lock(seconds):
    '''C code that waits with the interpreter's lock.'''
    import ctypes
    ctypes.PyDLL(None).usleep(int(seconds * 1000000))

@both(timeout=0.3)
def limited(how):
    try:
        if how == "waits":
            time.sleep(1.5)
        else:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                pass
    finally:
        kept.append(how)
"""
INI = "[worker:Tasks]\nlisten = text://127.0.0.1:0\ntasks = may\n"
TIMED_OUT = -32001

TRIED: dict[str, Callable] = {}


def tries(row: str) -> Callable[[Callable], Callable]:
    """The function tries the row of the table that begins so."""

    def note(function: Callable) -> Callable:
        TRIED[row] = function
        return function

    return note


class Worker:
    """What the lines need of the worker."""

    def __init__(self, spawned) -> None:
        self.spawned = spawned

    def ask(self, function: str, *args):
        with self.spawned.peer(timeout=30) as peer:
            return peer.rpc(function, list(args))

    def result(self, function: str, *args):
        reply = self.ask(function, *args)
        assert "result" in reply, reply
        return reply["result"]

    def each(self, function: str, *args) -> list:
        """What it gives in either kind of task."""
        return [self.result(function, *args), self.result(function + "_blocking", *args)]

    def at_once(self, *calls: tuple) -> list:
        """The results of several calls, made at the same time."""
        peers = [self.spawned.peer(timeout=30) for _ in calls]
        for peer, (function, *args) in zip(peers, calls, strict=True):
            message = {"jsonrpc": "2.0", "method": function, "params": args, "id": 1}
            peer.send(json_line(message))
        replies = [peer.json() for peer in peers]
        for peer in peers:
            peer.socket.close()
        assert all("result" in reply for reply in replies), replies
        return [reply["result"] for reply in replies]

    def ticks_during(self, function: str, *args) -> int:
        """How often the loop turns in the second from just after the call's start."""
        with self.spawned.peer(timeout=30) as peer, self.spawned.peer(timeout=30) as other:
            for each in (peer, other):
                each.rpc("gtask.ping", [])
            peer.send(json_line({"jsonrpc": "2.0", "method": function, "params": args, "id": 1}))
            time.sleep(0.1)
            began = time.monotonic()
            count = other.rpc("ticks", [0.5])["result"]
            took = time.monotonic() - began
            peer.json()
        return 0 if took > 1.2 else count


def json_line(message) -> bytes:
    return json.dumps(message).encode() + b"\n"


@pytest.fixture(scope="module")
def worker(module_spawn):
    spawned = module_spawn(INI, may=MODULE)
    spawned.expects_traceback = True
    return Worker(spawned)


class Slow:
    """A server that says what it has to say after a while, or nothing."""

    def __init__(self, seconds: float, words: bytes = b"hello") -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._words, self._seconds = words, seconds
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        time.sleep(self._seconds)
        with peer:
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.recv(65536)  # unread, it would have the close reset the connection
            peer.sendall(self._words)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def slow():
    made = []

    def make(seconds, words=b"hello"):
        made.append(Slow(seconds, words))
        return made[-1].port

    yield make
    for server in made:
        server.close()


@tries("sockets")
def sockets(worker, slow):
    port = slow(0.5)
    assert worker.each("talk", port) == ["hello"] * 2
    assert worker.ticks_during("talk", port) > 5
    assert worker.each("fetch", port) == ["BadStatusLine"] * 2
    for first, second in (("keep", "use_blocking"), ("keep_blocking", "use")):
        worker.result(first, port)
        assert worker.result(second, port) == "hello"


@tries("names")
def names(worker, slow):
    assert worker.each("resolve") == [["127.0.0.1", True]] * 2
    assert worker.at_once(*[("pause_blocking", 0.3)] * 10, ("resolve",))[-1] == ["127.0.0.1", True]


@tries("`time.sleep`")
def sleeping(worker, slow):
    assert worker.each("pause", 0.05) == ["slept"] * 2
    assert worker.ticks_during("pause", 0.5) > 5


@tries("`Lock`")
def locks(worker, slow):
    counts = worker.at_once(*[("count", 300)] * 2, *[("count_blocking", 300)] * 2)
    assert max(counts) == 1200
    results = worker.at_once(
        ("get", 600), ("get_blocking", 600), ("put", 600), ("put_blocking", 600)
    )
    assert results[0] + results[1] == 2 * sum(range(600))


@tries("`threading.local`")
def own(worker, slow):
    for _ in range(10):
        assert worker.each("own", 1) == [[None] * 3] * 2


@tries("`threading.Thread`")
def threads(worker, slow):
    assert worker.each("thread", 0.01) == [True, False]
    worker.result("thread_blocking", 0.3)
    time.sleep(0.5)
    assert worker.result("outlived") == "through"


@tries("`ThreadPoolExecutor`")
def executors(worker, slow):
    calls = [("submit", 1), ("submit_blocking", 2)] * 5
    assert worker.at_once(*calls) == [2, 4] * 5


@tries("`subprocess`")
def processes(worker, slow):
    right = [5, "out\n", 3, "x\n", 6]
    assert worker.each("processes", 0) == [right] * 2
    assert worker.at_once(*[("processes", 0.1), ("processes_blocking", 0.1)] * 3) == [right] * 6
    assert worker.ticks_during("processes", 0.5) > 5


@tries("`multiprocessing`")
def pools(worker, slow):
    right = [[0, 2, 4, 6, 8], [0, 2, 4, 6, 8], 7, 0]
    assert worker.each("pools") == [right] * 2
    assert worker.at_once(*[("pools",), ("pools_blocking",)] * 2) == [right] * 4


@tries("`os.fork`")
def forks(worker, slow):
    assert worker.each("forked") == [0, 0]


@tries("`asyncio.run`")
def asyncios(worker, slow):
    assert worker.each("run_coroutine", 0) == [[4, 5]] * 2
    assert worker.ticks_during("run_coroutine", 0.5) > 5
    assert worker.at_once(*[("run_coroutine_blocking", 0.2)] * 5) == [[4, 5]] * 5
    with worker.spawned.peer(timeout=30) as peer, worker.spawned.peer(timeout=30) as other:
        peer.send(json_line({"function": "run_coroutine", "args": [0.5]}))
        time.sleep(0.2)
        assert other.bare("run_coroutine", 0)["error"]["data"]["type"] == "RuntimeError"
        assert peer.json() == [4, 5]


@tries("`gevent.spawn`")
def greenlets(worker, slow):
    assert worker.each("spawn", 0.01) == [8, 8]
    assert worker.ticks_during("spawn", 0.5) > 5
    assert worker.each("call", worker.spawned.url()) == [True, True]


@tries("`sqlite3`")
def drivers_in_c(worker, slow):
    assert worker.each("query", 10) == [9, 9]
    assert worker.ticks_during("query", 1500) == 0
    assert worker.ticks_during("query_blocking", 1000) > 5
    port = slow(60, b"")
    assert worker.ticks_during("database", "psycopg2", port) == 0
    assert worker.ticks_during("database_blocking", "psycopg2", port) > 5


@tries("`psycopg`")
def drivers_in_python(worker, slow):
    port = slow(60, b"")
    for driver in ("psycopg", "pymysql"):
        assert worker.each("database", driver, port) != [None, None]
        assert worker.ticks_during("database", driver, port) > 5
        assert worker.ticks_during("database_blocking", driver, port) > 5


@tries("files")
def files(worker, slow):
    assert worker.each("read_pipe", 0) == [["x\n", "\n"]] * 2
    assert worker.ticks_during("read_pipe", 1.5) == 0
    assert worker.ticks_during("read_pipe_blocking", 1) > 5


@tries("code that computes")
def computing(worker, slow):
    assert worker.ticks_during("compute", 1.5) == 0
    assert worker.ticks_during("compute_blocking", 1) > 2


@tries("C code")
def lock_kept(worker, slow):
    assert worker.ticks_during("keep_lock", 1.5) == 0
    assert worker.ticks_during("keep_lock_blocking", 1.5) == 0


@tries("the time limit")
def limits(worker, slow):
    assert worker.ask("limited", "waits")["error"]["code"] == TIMED_OUT
    assert worker.ask("limited_blocking", "waits")["error"]["code"] == TIMED_OUT
    stuck = worker.result("gtask.health")["threads"]
    assert stuck["stuck"] >= 1
    assert worker.ticks_during("limited", "computes") == 0
    wait_until(lambda: worker.result("gtask.health")["threads"]["stuck"] == 0)


@pytest.mark.parametrize("row", TRIED)
def test_a_row_is_true(worker, slow, row):
    TRIED[row](worker, slow)


def test_each_row_is_tried():
    rows = re.findall(r"^\| (?!what|-)(.+?) \|", DOCUMENT.read_text(), re.M)
    assert len(rows) == len(TRIED)
    for row, tried in zip(rows, TRIED, strict=True):
        assert row.startswith(tried)


SCRIPT_NAMES = """
from time import sleep
from ssl import PROTOCOL_TLS_CLIENT, SSLContext, TLSVersion
from threading import Lock
from gtask import Worker, run_all, task

@task
def nap():
    sleep(0.3)
    return type(Lock()).__module__

@task
def context():
    made = SSLContext(PROTOCOL_TLS_CLIENT)
    made.minimum_version = TLSVersion.TLSv1_2
    made.options |= 0
    return "made"

run_all(Worker("text://127.0.0.1:0", tasks=[nap, context], name="Tasks"))
"""


@pytest.mark.parametrize("begins", ["", "from gtask.patches import patch_all\npatch_all()\n"])
def test_a_script_that_took_names_before_works_or_is_told(tmp_path, begins):
    (tmp_path / "script.py").write_text(begins + SCRIPT_NAMES)
    log = tmp_path / "log"
    with log.open("wb") as output:
        script = subprocess.Popen(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=output,
            stderr=output,
        )
    try:
        ready = wait_until(lambda: re.search(r"Tasks ready: text://\S+:(\d+)", log.read_text()))
        with Peer(("127.0.0.1", int(ready[1]))) as one, Peer(("127.0.0.1", int(ready[1]))) as other:
            began = time.monotonic()
            for peer in (one, other):
                peer.send(b'{"function":"nap"}\n')
            assert [one.json(), other.json()] == ["gtask.patches.locks"] * 2
            assert time.monotonic() - began < 0.55
            assert one.bare("context") == "made"
    finally:
        script.terminate()
        assert script.wait(20) == 0
    assert ("imported before gtask patched" in log.read_text()) == (not begins)
