"""The log decides nothing: handlers, filters and locks of the user's, full disks and slow readers."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..support.peer import Peer
from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = c.sock
stop_timeout = 3

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
"""

HEAD = """
import contextvars, logging, logging.config, logging.handlers, sys, threading, time, warnings
import gevent
from gtask import task

log = logging.getLogger("mine")
root = logging.getLogger()

@task
def echo(x):
    return x

@task
def fail(why="no"):
    raise ValueError(why)

@task(timeout=0.2)
def slow():
    time.sleep(30)

@task
def no_json():
    return object()

@task
def say(text):
    log.warning(text)
"""

WANTS_VARIABLE = """
request = contextvars.ContextVar("request")

class WantsVariable(logging.Filter):
    def filter(self, record):
        record.request = request.get()
        return True
"""
BROKEN_HANDLER = """
class Broken(logging.Handler):
    def emit(self, record):
        raise ConnectionError("cannot be sent")
root.addHandler(Broken())
"""
ENDLESS_HANDLER = """
class Endless(logging.Handler):
    def emit(self, record):
        gevent.event.Event().wait()
import gevent.event
root.addHandler(Endless())
"""
HELD_LOCK = """
handler = logging.StreamHandler(open("held.log", "w"))
root.addHandler(handler)

@task
def hold():
    with handler.lock, logging._lock:
        time.sleep(30)
"""


def see_it_serve(worker) -> None:
    """Each call is answered in time, and new connections are served."""
    for message, code in (
        ({"function": "fail"}, 1),
        ({"jsonrpc": "2.0", "method": "slow", "id": 1}, -32001),
        ({"function": "no_json"}, -32603),
    ):
        with worker.peer(timeout=3.0 * SLOWNESS) as peer:
            assert peer.ask(message)["error"]["code"] == code
            assert peer.bare("echo", 1) == 1


@pytest.mark.parametrize(
    "hostile",
    [
        WANTS_VARIABLE + "root.handlers[0].addFilter(WantsVariable())",
        WANTS_VARIABLE + "logging.getLogger('gtask.tasks').addFilter(WantsVariable())",
        BROKEN_HANDLER,
        ENDLESS_HANDLER,
        BROKEN_HANDLER.replace('ConnectionError("cannot be sent")', "SystemExit(3)"),
        "root.handlers[0].setFormatter(logging.Formatter('%(request)s'))",
        "root.addHandler(logging.NullHandler())\nlogging.setLogRecordFactory(lambda *a, **k: 1 / 0)",
    ],
    ids=[
        "filter",
        "filter of a logger",
        "handler",
        "endless handler",
        "exit",
        "formatter",
        "factory",
    ],
)
def test_no_call_waits_for_what_is_in_the_way_of_the_log(spawn, hostile: str):
    worker = spawn(INI, tasks=HEAD + hostile)
    worker.expects_traceback = True
    with worker.unharmed():
        see_it_serve(worker)
    wait_until(lambda: "ValueError: no" in worker.text, what="the record arrives all the same")
    assert worker.text.count("told once") == (0 if "Endless" in hostile else 1)
    assert worker.stop() == 0


def test_a_lock_that_a_task_holds_stops_nobody(spawn):
    worker = spawn(INI, tasks=HEAD + HELD_LOCK)
    worker.expects_traceback = True
    with worker.unharmed(), worker.peer() as holder:
        holder.send(b'{"function": "hold", "timeout": 20}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 1)
        see_it_serve(worker)
    wait_until(lambda: "ValueError: no" in worker.text)


def test_a_slow_handler_gets_each_record_in_order(spawn):
    slow = """
class Slow(logging.Handler):
    def emit(self, record):
        time.sleep(0.02)
        with open("slow.log", "a") as file:
            file.write(record.getMessage() + repr(record.exc_info[1]) + "\\n")
root.addHandler(Slow(logging.ERROR))
"""
    worker = spawn(INI, tasks=HEAD + slow)
    worker.expects_traceback = True
    with worker.peer() as peer:
        for number in range(20):
            peer.ask({"function": "fail", "args": [str(number)]})
    assert worker.stop() == 0
    lines = (worker.folder / "slow.log").read_text().splitlines()
    assert [line.partition("failed")[2] for line in lines] == [
        f"ValueError('{number}')" for number in range(20)
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"version": 1},
        {"version": 1, "root": {"level": "INFO", "handlers": []}},
        {
            "version": 1,
            "formatters": {"theirs": {"format": "THEIRS %(name)s %(message)s"}},
            "handlers": {"theirs": {"class": "logging.StreamHandler", "formatter": "theirs"}},
            "root": {"level": "INFO", "handlers": ["theirs"]},
        },
    ],
    ids=["nothing", "no handler", "a handler"],
)
@pytest.mark.parametrize("where", ["module", "task"])
def test_a_users_configuration_does_not_silence_us(spawn, given: dict, where: str):
    configure = f"logging.config.dictConfig({given!r})"
    if where == "task":
        configure = f"@task\ndef configure():\n    {configure}\n"
    worker = spawn(INI, tasks=HEAD + configure)
    worker.expects_traceback = True
    with worker.peer() as peer:
        if where == "task":
            peer.bare("configure")
        peer.ask({"function": "fail"})
    begin = "THEIRS " if "handlers" in given else ""
    wait_until(
        lambda: re.search(rf"{begin}.*gtask.tasks:? task 'fail|{begin}.*fail id", worker.text)
    )
    wait_until(lambda: "ValueError: no" in worker.text)


# -- one form for everything --------------------------------------------------------------------

TROUBLE = """
import ctypes
from gtask import Timer

class Ill:
    def __del__(self):
        raise ValueError("in __del__")

@task
def trouble():
    warnings.warn("a warning", stacklevel=1)
    Ill()
    gevent.spawn(lambda: 1 / 0).join()
    thread = threading.Thread(target=lambda: [][1])
    thread.start()
    thread.join()
    gevent.get_hub().loop.run_callback(lambda: {}["in a callback"])
    Timer.add(0.01, lambda: int("in a timer"), persistent=False)
    time.sleep(0.1)

@task
def crash():
    ctypes.string_at(0)

@task
def spin():
    while True:
        pass
"""


def test_each_line_of_a_json_log_is_json(spawn):
    ini = INI.replace("[gtask]", "[gtask]\nlog_format = json\nlog_file = log.txt")
    ini = ini.replace("[worker:Tasks]", "[worker:Tasks]\nhard_timeout = 1")
    worker = spawn(ini, wait=False, tasks=HEAD + TROUBLE)
    worker.expects_traceback = True
    file = worker.folder / "log.txt"

    def records() -> list[dict]:
        return [json.loads(line) for line in file.read_text().splitlines()]

    def ready() -> list[str]:
        found = re.findall(r"ready: text://127.0.0.1:(\d+)", file.read_text())
        return found if file.exists() else []

    wait_until(lambda: file.exists() and ready())
    address = "127.0.0.1", int(ready()[-1])
    with Peer(address) as peer:
        assert peer.bare("trouble") is None
        peer.ask({"function": "fail", "args": ["a\nb\x1b[2J"]})
    for function in ("crash", "spin"):
        with Peer(address) as peer, pytest.raises((EOFError, ConnectionError)):
            peer.bare(function)
        wait_until(lambda function=function: f"in {function}" in file.read_text())
    text = file.read_text()
    for word in (
        "a warning",
        "in __del__",
        "ZeroDivisionError",
        "IndexError",
        "in a callback",
        "in a timer",
        "a\\nb\\u001b[2J",
    ):
        assert word in text, word
    stacks = {
        each["message"].partition(": ")[2]: each["stacks"] for each in records() if "stacks" in each
    }
    assert [how.split(",")[0] for how in stacks] == ["killed by SIGSEGV", "killed by SIGABRT"]
    assert all("most recent call first" in text for text in stacks.values())
    assert worker.text == ""


def test_a_start_that_fails_is_one_record_of_a_json_log(tmp_path: Path):
    (tmp_path / "w.ini").write_text(INI.replace("[gtask]", "[gtask]\nlog_format = json"))
    (tmp_path / "tasks.py").write_text("raise ImportError('no\\nmore')")
    done = run(tmp_path)
    (line,) = done.stderr.splitlines()
    assert "cannot import tasks: ImportError: no" in json.loads(line)["message"]
    assert done.returncode == os.EX_CONFIG


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gtask", "-c", "w.ini"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        check=False,
    )


def test_what_peers_send_writes_no_line_of_its_own(spawn):
    ini = INI.replace("listen = text://127.0.0.1:0", "listen = text+unix:///{0}/t.sock")
    folder = tempfile.mkdtemp()
    worker = spawn(ini.replace("{0}", folder), tasks=HEAD)
    worker.expects_traceback = True
    forged = "2026-01-01 00:00:00.000 ERROR   1 gtask.master: forged"
    with worker.peer() as peer:
        peer.ask({"jsonrpc": "2.0", "method": "fail", "id": f"\x1b[2J\n{forged} id{'x' * 100000}"})
        peer.ask({"function": "fail", "args": [f"\r\n{forged} message\u2028\x9b2J"]})
        peer.ask({"function": "say", "args": [f"text\n{forged} by the user's own words"]})
    with socket.socket(socket.AF_UNIX) as named:
        named.bind(b"\0" + os.urandom(4).hex().encode() + f"\n{forged} peer".encode())
        named.connect(worker.address())
        named.sendall(b'{"function":"fail"}\n')
        named.recv(1000)
        table = worker.command("connections").stdout
    assert worker.text.count("forged") >= 4
    assert "forged" in table
    for text in (worker.text, table):
        assert not re.search(r"(?m)^2026-01-01", text)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028]", text)
    assert max(map(len, worker.text.splitlines())) < 10000


# -- where lines go -----------------------------------------------------------------------------

# Imports no more than any worker has: the other user may not be able to read our Python.
TELLER = """
import logging, time
from gtask import task
log = logging.getLogger("tasks")

@task
def tell(text, seconds):
    time.sleep(seconds)
    log.warning(text)
    return text
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """One that every user may read, as /var/log."""
    with tempfile.TemporaryDirectory(prefix="gtask-", dir="/var/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.parametrize("user", ["", "nobody"])
@pytest.mark.parametrize("fails", [False, True], ids=["reload", "failed reload"])
def test_a_renamed_log_is_left_by_every_process(spawn, open_folder: Path, user: str, fails: bool):
    if user and os.geteuid():
        pytest.fail("run the tests as root: a service is to have another user")
    file = open_folder / "log.txt"
    ini = INI.replace("[gtask]", f"[gtask]\nlog_file = {file}").replace("= 3", "= 30")
    ini = ini.replace("[gtask]", f"[gtask]\npython_path = {open_folder}")
    ini = ini.replace("[worker:Tasks]", f"[worker:Tasks]\nuser = {user}")
    (open_folder / "tasks.py").write_text(TELLER)  # which that user is to read
    worker = spawn(ini, wait=False)
    address = wait_until(lambda: ready_in(file))
    with Peer(address) as old, Peer(address) as older:
        old.send(b'{"function": "tell", "args": ["after it all", 3]}\n')
        older.send(b'{"jsonrpc": "2.0", "method": "tell", "params": ["later", 2.5], "id": 1}\n')
        wait_until(lambda: worker.status()["services"][0]["running"] == 2)
        file.rename(open_folder / "log.1")
        if fails:
            worker.config.write_text("[nonsense]\n")
        worker.send_signal(signal.SIGHUP)
        word = "reload failed" if fails else " ready: "
        wait_until(lambda: file.exists() and word in file.read_text())
        assert old.json() == "after it all"
        wait_until(
            lambda: not [pid for pid in worker.pids() if has_open(pid, open_folder / "log.1")]
        )
    for text in ("after it all", "later"):
        assert text in file.read_text()
        assert text not in (open_folder / "log.1").read_text()


def has_open(pid: int, file: Path) -> bool:
    try:
        return any(os.readlink(fd) == str(file) for fd in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended
        return False


def ready_in(file: Path) -> tuple[str, int] | None:
    found = re.findall(r"ready: text://([\d.]+):(\d+)", file.read_text() if file.exists() else "")
    return (found[-1][0], int(found[-1][1])) if found else None


def test_what_a_daemon_prints_follows_the_log(tmp_path: Path):
    prints = HEAD + "@task\ndef show(text):\n    print(text, flush=True)\n"
    (tmp_path / "tasks.py").write_text(prints)
    (tmp_path / "w.ini").write_text(INI.replace("[gtask]", "[gtask]\nlog_file = log.txt"))
    file = tmp_path / "log.txt"

    words = [sys.executable, "-m", "gtask", "-c", "w.ini"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([*words, "start", "-d"], cwd=tmp_path, env=env, check=True)
    try:
        address = wait_until(lambda: ready_in(file))
        with Peer(address) as peer:
            peer.bare("show", "before")
            file.rename(tmp_path / "log.1")
            (tmp_path / "tasks.py").write_text("no code")
            subprocess.run([*words, "reload"], cwd=tmp_path, env=env, check=False)
            time.sleep(1)  # the same worker, which has not logged anything since
            peer.bare("show", "behind")
            wait_until(lambda: file.exists() and "behind" in file.read_text())
        assert "before" in (tmp_path / "log.1").read_text()
    finally:
        subprocess.run([*words, "stop"], cwd=tmp_path, env=env, check=True)


class Piped:
    """A worker whose standard error is a pipe, or what else a test gives it."""

    def __init__(self, folder: Path, stderr: int) -> None:
        (folder / "w.ini").write_text(INI.replace("text://127.0.0.1:0", f"text+unix://{folder}/t"))
        (folder / "tasks.py").write_text(HEAD)
        self.address = f"{folder}/t"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gtask", "-c", "w.ini"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=stderr,
        )

    def __enter__(self) -> Piped:
        wait_until(self._answers, 20)
        return self

    def _answers(self) -> bool:
        try:
            with Peer(self.address) as peer:
                return peer.bare("echo", 1) == 1
        except OSError:
            return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            assert self.process.wait(20 * SLOWNESS) == 0
        finally:
            self.process.kill()


def say_a_lot(worker: Piped) -> None:
    with Peer(worker.address, 5 * SLOWNESS) as peer:
        for number in range(300):
            assert peer.bare("say", f"{number} " + "x" * 1000) is None
        peer.ask({"function": "fail"})
        assert peer.bare("echo", 2) == 2


def test_a_reader_that_does_not_read_stops_nobody(tmp_path: Path):
    reader, writer = os.pipe()
    with Piped(tmp_path, writer) as worker:
        os.close(writer)
        say_a_lot(worker)
        text = b""
        while b"ValueError: no" not in text:  # it reads at last, and gets all
            text += os.read(reader, 65536)
        numbers = re.findall(rb"mine: (\d+) x", text)
        assert [int(number) for number in numbers] == list(range(300))
    os.close(reader)


def test_a_reader_that_has_gone_stops_nobody(tmp_path: Path):
    reader, writer = os.pipe()
    with Piped(tmp_path, writer) as worker:
        os.close(writer)
        os.close(reader)
        say_a_lot(worker)


def test_a_full_disk_stops_nobody(tmp_path: Path):
    full = os.open("/dev/full", os.O_WRONLY)
    with Piped(tmp_path, full) as worker:
        os.close(full)
        say_a_lot(worker)


def test_a_journal_that_does_not_read_stops_nobody(tmp_path: Path):
    ours, theirs = socket.socketpair()
    with Piped(tmp_path, theirs.fileno()) as worker:
        theirs.close()
        say_a_lot(worker)
        text = b""
        while b"ValueError: no" not in text:
            text += ours.recv(65536)
    ours.close()


# -- native threads -----------------------------------------------------------------------------


def test_threads_and_greenlets_log_through_a_users_handler(spawn):
    both = """
handler = logging.StreamHandler(open("theirs.log", "w"))
root.addHandler(handler)

def talk(name):
    for number in range(500):
        log.warning("%s %s.", name, number)
        if name.startswith("green") and number % 10 == 0:
            time.sleep(0.001)
    return name

@task(blocking=True)
def native(name):
    return talk(name)

@task
def green(name):
    return talk(name)
"""
    worker = spawn(INI, tasks=HEAD + both)
    names = [f"{kind} {number}" for number in range(3) for kind in ("native", "green")]
    peers = [worker.peer(timeout=10 * SLOWNESS) for _ in names]
    for name, peer in zip(names, peers, strict=True):
        peer.send(
            b'{"function": "%s", "args": ["%s"]}\n' % (name.split()[0].encode(), name.encode())
        )
    for name, peer in zip(names, peers, strict=True):
        assert peer.json() == name
        peer.socket.close()
    assert worker.stop() == 0
    for text in (worker.text, (worker.folder / "theirs.log").read_text()):
        for name in names:
            assert re.findall(rf"{name} (\d+)\.", text) == [str(number) for number in range(500)]


def test_a_record_of_a_boot_that_fails_reaches_a_users_handler(tmp_path: Path):
    theirs = """
class Theirs(logging.Handler):
    def emit(self, record):
        time.sleep(0.05)
        with open("theirs.log", "a") as file:
            file.write(self.format(record))
root.addHandler(Theirs())
"""
    handler = HEAD + theirs + "def on_worker_start(worker):\n    raise OSError('no database')\n"
    (tmp_path / "tasks.py").write_text(handler + "def on_message(c, d): pass\n")
    (tmp_path / "w.ini").write_text(INI.replace("tasks = tasks", "handler = tasks"))
    assert "no database" in run(tmp_path).stderr
    assert "OSError: no database" in (tmp_path / "theirs.log").read_text()


def test_time_passes_for_others_while_a_handler_sleeps(spawn):
    sleepy = """
class Sleepy(logging.Handler):
    def emit(self, record):
        time.sleep(5)
root.addHandler(Sleepy())
"""
    worker = spawn(INI, tasks=HEAD + sleepy)
    worker.expects_traceback = True
    started = time.monotonic()
    see_it_serve(worker)
    assert time.monotonic() - started < 3 * SLOWNESS


CLIENT = """
from gevent import monkey
monkey.patch_all()
import logging, sys
import gevent
from gevent.event import Event
from gtask import AsyncTcpConnection, TaskClient

class Hostile(logging.Handler):
    def emit(self, record):
        {body}

logging.getLogger().addHandler(Hostile())
logging.getLogger().setLevel(logging.DEBUG)
ended = Event()
broken = AsyncTcpConnection(sys.argv[1])

def fail(connection, data):
    raise ValueError("in a callback")

broken.on_message = fail
broken.on_connect = lambda connection: connection.send('{{"function": "echo", "args": [1]}}')
broken.on_close = lambda connection: ended.set() if connection.bytes_read else connection.reconnect(0.1)
broken.connect()
client = TaskClient([sys.argv[1]], patience=30)
call = client.call("echo", [7], timeout=30)
print("begun", flush=True)
print(call.get(), ended.wait(10), flush=True)
client.close()
"""


@pytest.mark.parametrize("body", ["1 / 0", "Event().wait()", "gevent.sleep(0.5)"])
def test_a_program_that_calls_waits_for_no_handler(spawn, tmp_path: Path, body: str):
    """Also in the event loop: an endpoint that refuses is tried again, callbacks are told of the end."""
    client = subprocess.Popen(
        [sys.executable, "-c", CLIENT.format(body=body), f"text+unix://{tmp_path}/s"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert client.stdout is not None
        assert client.stdout.readline() == "begun\n"
        spawn(INI.replace("text://127.0.0.1:0", f"text+unix://{tmp_path}/s"), tasks=HEAD)
        said, errors = client.communicate(timeout=30 * SLOWNESS)
    finally:
        client.kill()
    assert said == "7 True\n", errors
    assert client.returncode == 0
    assert errors.count("told once") == (1 if body == "1 / 0" else 0)
