"""What ends in a worker, and how: greenlets by what they raise, the process with all that was asked for.

No exception that user code raises, wherever it does, ends a process with its other calls. A process
that ends in good order calls `on_worker_stop` and what is registered with `atexit`, in time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until

INI = """
[gtask]
control = control.sock
stop_timeout = {stop_timeout}

[worker:Tasks]
listen = text://127.0.0.1:0
tasks = some_tasks
{lines}
"""


def ini(lines: str = "", stop_timeout: float = 10) -> str:
    return INI.format(lines=lines, stop_timeout=stop_timeout)


# -- exceptions that gevent lets end a process ----------------------------------------------------

RAISING = """
import os, signal, sys, threading, time
import gevent
from gtask import Timer, task

KINDS = {
    "exit": SystemExit(3), "interrupt": KeyboardInterrupt(), "system": SystemError("odd"),
    "generator": GeneratorExit(), "base": BaseException("base"),
}

def leave(kind):
    raise KINDS[kind]

@task
def here(kind):
    leave(kind)

@task(blocking=True)
def native(kind):
    leave(kind)

@task
def spawned(kind):
    gevent.spawn(leave, kind).join()

@task
def raw(kind):
    gevent.spawn_raw(leave, kind)

@task
def later(kind):
    gevent.spawn_later(0.01, leave, kind)

@task
def thread(kind):
    one = threading.Thread(target=leave, args=(kind,))
    one.start()
    one.join()

@task
def timer(kind):
    Timer.add(0.01, leave, kind, persistent=False)

@task
def linked(kind):
    gevent.spawn(int).link(lambda _: leave(kind))

@task
def watcher(kind):
    one = gevent.get_hub().loop.timer(0.01)
    one.start(leave, kind)
    WATCHERS.append(one)

WATCHERS = []

@task
def handler(kind):
    signal.signal(signal.SIGPROF, lambda *_: leave(kind))
    os.kill(os.getpid(), signal.SIGPROF)
    time.sleep(0.1)

@task
def gevents_handler(kind):
    WATCHERS.append(gevent.signal_handler(signal.SIGWINCH, leave, kind))
    os.kill(os.getpid(), signal.SIGWINCH)
    time.sleep(0.1)

@task
def pid():
    time.sleep(0.3)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def raising(module_spawn):
    worker = module_spawn(ini(), some_tasks=RAISING)
    worker.expects_traceback = True
    return worker


@pytest.mark.parametrize("kind", ["exit", "interrupt", "system", "generator", "base"])
@pytest.mark.parametrize(
    "how",
    ["here", "native", "spawned", "raw", "later", "thread", "timer", "linked", "watcher", "handler",
     "gevents_handler"],
)  # fmt: skip
def test_the_neighbours_of_what_is_raised_go_on(raising, how: str, kind: str):
    with raising.unharmed(), raising.peer() as innocent, raising.peer() as culprit:
        innocent.send(b'{"function":"pid"}\n')
        answer = culprit.rpc(how, [kind])
        assert "result" in answer or answer["error"]["code"] == -32000 or answer["error"]["data"]
        assert type(innocent.json()) is int


def test_what_ends_a_greenlet_is_logged(raising):
    with raising.peer() as peer:
        seen = raising.text.count("SystemExit: 3")
        assert peer.rpc("spawned", ["exit"])["result"] is None
    wait_until(lambda: raising.text.count("SystemExit: 3") > seen)


# -- signals --------------------------------------------------------------------------------------

SIGNALS = """
import asyncio, os, signal, subprocess, sys, time
from gtask import task

class Late(Exception):
    pass

def on_alarm(*_):
    raise Late("alarm")

def limited(wait):
    before = signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        wait()
        return "not caught"
    except Late:
        return "caught"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

@task
def alarm_while_computing():
    def compute():
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pass
    return limited(compute)

@task
def alarm_while_waiting():
    return limited(lambda: time.sleep(5))

@task
def alarm_left_behind():
    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, 0.2)

@task
def compute(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"

@task
def wait(seconds):
    time.sleep(seconds)
    return "done"

OURS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD)

@task
def take_and_restore():
    for number in OURS:
        before = signal.getsignal(number)
        assert signal.signal(number, lambda *_: None) == before
        time.sleep(0.01)
        assert signal.signal(number, before) != before
        assert signal.getsignal(number) == before
    return subprocess.run(["true"]).returncode

@task
def take_for_good(how):
    handler = {"ignore": signal.SIG_IGN, "default": signal.SIG_DFL, "exit": lambda *_: sys.exit(7)}
    for number in OURS:
        signal.signal(number, handler[how])
        assert signal.getsignal(number) == handler[how]
    return subprocess.run(["true"]).returncode

@task
def with_asyncio():
    async def main():
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, loop.stop)
        loop.remove_signal_handler(signal.SIGTERM)
    asyncio.run(main())

@task
def wakeup_descriptor():
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable)

@task
def children_that_end():
    ended = []
    before = signal.signal(signal.SIGCHLD, lambda number, frame: ended.append(number))
    subprocess.run(["true"], check=True)
    time.sleep(0.1)
    signal.signal(signal.SIGCHLD, before)
    return len(ended) > 0

@task
def wrong():
    for handler in ("text", None, 77):
        try:
            signal.signal(signal.SIGTERM, handler)
        except (TypeError, ValueError):
            continue
        return repr(handler)

@task
def forked():
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    os.close(writable)
    os.kill(pid, signal.SIGTERM)
    with open(readable) as end:
        return end.read()  # as soon as nobody has the other end

@task
def dispositions():
    out = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, text=True)
    ignored = int(out.stdout.split()[1], 16)
    return [n for n in (signal.SIGQUIT, signal.SIGUSR1, signal.SIGTTIN) if ignored & 1 << n - 1]
"""


@pytest.fixture
def signals(spawn):
    worker = spawn(ini(), some_tasks=SIGNALS)
    wait_until(lambda: len(worker.pids()) == 2)  # the one that has forked the worker has ended
    return worker


def test_an_alarm_is_for_the_task_that_has_set_it(signals):
    signals.expects_traceback = True
    with signals.unharmed(), signals.peer() as peer, signals.peer() as other:
        assert peer.bare("alarm_while_computing") == "caught"
        other.send(b'{"function":"wait","args":[0.5]}\n')
        assert peer.bare("alarm_while_waiting") == "caught"
        assert other.json() == "done"
        for innocent in ("compute", "wait"):
            assert peer.bare("alarm_left_behind") is None
            assert peer.bare(innocent, 0.6) == "done"
    wait_until(lambda: signals.text.count("the handler of signal 14 has failed") == 2)


@pytest.mark.parametrize(
    "call",
    [("take_and_restore",), ("take_for_good", "ignore"), ("take_for_good", "default"),
     ("take_for_good", "exit"), ("with_asyncio",), ("wakeup_descriptor",)],
)  # fmt: skip
def test_a_worker_drains_whatever_became_of_its_handlers(signals, call):
    signals.expects_traceback = True
    with signals.peer() as peer:
        assert peer.bare(*call) in (0, None)
        assert len(signals.command("connections").stdout.splitlines()) > 1  # by USR2
        peer.send(b'{"function":"wait","args":[0.5]}\n')
        time.sleep(0.2)
        signals.send_signal(signal.SIGTERM)
        assert peer.json() == "done"
    assert signals.process.wait(10 * SLOWNESS) == 0


def test_handlers_of_the_users(signals):
    with signals.unharmed(), signals.peer() as peer:
        assert peer.bare("children_that_end") is True
        assert peer.bare("wrong") is None
        assert peer.bare("dispositions") == []


def test_a_forked_child_has_the_defaults(signals):
    with signals.peer() as peer:
        assert peer.bare("forked") == ""


# -- the end of a process -------------------------------------------------------------------------

ENDING = """
import atexit, os, tempfile, threading, time, weakref
from concurrent.futures import ThreadPoolExecutor
from gtask import task

shared = tempfile.TemporaryDirectory(dir=".")
executor = ThreadPoolExecutor(1)

def note(what):
    with open("ends", "a") as file:
        file.write(f"{os.getpid()} {what}\\n")

def failing():
    raise RuntimeError("an atexit function that fails")

atexit.register(note, "import")
atexit.register(failing)

@task
def pid():
    return os.getpid()

@task
def register():
    atexit.register(note, "task")
    executor.submit(lambda: (time.sleep(0.2), note("executor")))
    own = weakref.finalize(register, note, "finalizer")
    return os.getpid()

@task
def thread(seconds, daemon=False):
    def run():
        time.sleep(seconds)
        note("thread")
    threading.Thread(target=run, daemon=daemon, name="ours").start()
    return os.getpid()

@task
def hang(how):
    sleep = time.sleep
    if how == "native":
        from gevent import monkey
        sleep = monkey.get_original("time", "sleep")
    atexit.register(sleep, 600)
    return os.getpid()

@task
def folder():
    return os.path.isdir(shared.name)

@task
def wait(seconds):
    time.sleep(seconds)
"""
HOOKS = """
from some_tasks import note

def on_worker_start(worker):
    note("start")

def on_worker_stop(worker):
    note("stop")

def on_worker_reload(worker):
    note("reload")
"""


def noted(worker) -> dict[int, list[str]]:
    """What each process has noted, in its order."""
    notes: dict[int, list[str]] = {}
    for line in (worker.folder / "ends").read_text().splitlines():
        pid, what = line.split()
        notes.setdefault(int(pid), []).append(what)
    return notes


IN_ORDER = ["start", "stop", "executor", "task", "import"]


def test_a_drain_ends_with_all_that_was_registered(spawn):
    worker = spawn(ini("handler = hooks"), some_tasks=ENDING, hooks=HOOKS)
    worker.expects_traceback = True
    with worker.peer() as peer:
        pid = peer.bare("register")
    assert worker.stop() == 0
    *others, last = [what for what in noted(worker)[pid] if what != "finalizer"]
    assert [*others, last] == IN_ORDER
    assert "finalizer" in noted(worker)[pid]
    assert "failing" in worker.text
    assert "an atexit function that fails" in worker.text


def test_so_does_a_stop_at_once(spawn):
    worker = spawn(ini("handler = hooks"), some_tasks=ENDING, hooks=HOOKS)
    worker.expects_traceback = True
    with worker.peer() as peer:
        pid = peer.bare("pid")
        peer.send(b'{"function":"wait","args":[60]}\n')
        assert worker.stop(signal.SIGINT) == 0
    assert noted(worker)[pid] == ["start", "stop", "import"]


def test_a_reload_and_a_share_of_tasks(spawn):
    worker = spawn(ini("handler = hooks\nmax_tasks = 10"), some_tasks=ENDING, hooks=HOOKS)
    worker.expects_traceback = True
    with worker.peer() as peer:
        first = peer.bare("pid")
    worker.command("reload")
    wait_until(lambda: noted(worker)[first] == ["start", "reload", "stop", "import"])
    with worker.peer() as peer:
        second = peer.bare("pid")
        for _ in range(10):
            peer.bare("pid")
    wait_until(lambda: noted(worker)[second] == ["start", "stop", "import"])
    with worker.peer() as peer:
        assert peer.bare("folder") is True, "a process's end removes nothing that others use"


@pytest.mark.parametrize("how", ["cooperative", "native"])
def test_a_function_that_hangs_costs_a_line(spawn, how: str):
    worker = spawn(ini(stop_timeout=1), some_tasks=ENDING)
    worker.expects_traceback = True
    with worker.peer() as peer:
        peer.bare("hang", how)
    started = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - started < 3 * SLOWNESS
    assert "the end of the process takes too long, so it is cut off here\n" in worker.text
    assert "run_exit_functions" in worker.text


def test_threads_that_are_no_daemons_are_waited_for(spawn):
    worker = spawn(ini(stop_timeout=2), some_tasks=ENDING)
    worker.expects_traceback = True
    with worker.peer() as peer:
        pid = peer.bare("thread", 0.4)
        peer.bare("thread", 0.8, True)
    assert worker.stop() == 0
    assert noted(worker)[pid] == ["thread", "import"]


def test_but_not_for_ever(spawn):
    worker = spawn(ini(stop_timeout=2), some_tasks=ENDING)
    worker.expects_traceback = True
    with worker.peer() as peer:
        pid = peer.bare("thread", 600)
    assert worker.stop() == 0
    assert noted(worker)[pid] == ["import"]
    assert "thread ours is cut off" in worker.text


def test_a_process_that_cannot_start_ends_in_order_too(spawn):
    hooks = HOOKS.replace('note("start")', "1 / 0")
    worker = spawn(ini("handler = hooks"), some_tasks=ENDING, hooks=hooks, wait=False)
    worker.expects_traceback = True
    assert worker.process.wait(20 * SLOWNESS) == 1
    assert set(map(tuple, noted(worker).values())) == {("import",)}


SCRIPT = """
import atexit, os, sys
from gtask import Worker, run_all

def note(what):
    with open("ends", "a") as file:
        file.write(f"{os.getpid()} {what}\\n")

atexit.register(note, "script")
worker = Worker("text://127.0.0.1:0", tasks="some_tasks", handler="hooks", name="Tasks")
run_all(worker, python_path=("elsewhere",))
"""


def test_a_scripts_functions_and_handler(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "main.py").write_text(SCRIPT)
    for name, text in (("some_tasks", ENDING), ("hooks", HOOKS)):
        (tmp_path / "elsewhere" / f"{name}.py").write_text(text)
    with subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as script:
        assert script.stderr is not None
        while "ready" not in (line := script.stderr.readline()):
            assert line, "it has ended"
        script.terminate()
        script.stderr.read()
    assert script.returncode == 0
    lines = (tmp_path / "ends").read_text().splitlines()
    of_worker = [line.split()[1] for line in lines if not line.startswith(f"{script.pid} ")]
    assert of_worker == ["start", "stop", "import", "script"]
    assert f"{script.pid} script" in lines
