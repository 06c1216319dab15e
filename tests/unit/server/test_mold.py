"""The mold: what it tells its master, and the workers it forks; the test is the master."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

MASTER = """
import json, os, select, signal, socket, sys
from gtask import Worker, native, process
from gtask.config import parse_settings
from gtask.generation import Generation
from gtask.scoreboard import Scoreboard
from gtask.server.mold import run_mold

process.adopt_orphans()
settings = parse_settings(sys.argv[1])
listener = native.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
listener.setblocking(False)
ours, theirs = native.seqpacket_pair()
events, workers_end = native.seqpacket_pair()
names = [each.name for each in settings.services]
generation = Generation(
    3,
    settings,
    {name: [listener] for name in names},
    {name: Scoreboard(8) for name in names},
    theirs,
    workers_end,
    os.getpid(),
)

def start(workers=None):
    pid = os.fork()
    if pid == 0:
        ours.close()
        events.close()
        os._exit(run_mold(generation, workers))
    theirs.close()
    workers_end.close()
    return pid

def heard():
    # of the mold before those of workers
    ready, _, _ = select.select([ours, events], [], [], 30)
    return json.loads((ours if ours in ready else events).recv(65536))

def spawn(*ids, service="A"):
    for id in ids:
        ours.send(json.dumps({"event": "spawn", "service": service, "id": id, "row": id}).encode())

def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""

INI = "[worker:A]\nlisten = text://127.0.0.1:0\ntasks = some_tasks\n"
TASKS = "import os\nfrom gtask import task\n@task\ndef pid():\n    return os.getpid()\n"


@pytest.fixture
def run(tmp_path):
    """Runs a master that goes on with some code, beside a module of tasks."""

    def run_master(code: str, ini: str = INI, tasks: str = TASKS) -> None:
        (tmp_path / "some_tasks.py").write_text(tasks)
        done = subprocess.run(
            [sys.executable, "-c", MASTER + code, ini],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return run_master


def test_it_loads_forks_what_is_asked_for_and_ends_with_the_channel(run):
    run("""
mold = start()
assert heard() == {"event": "loaded", "functions": {"A": ["pid"]}}
assert open(f"/proc/{mold}/cmdline").read().startswith("gtask: mold 3")
spawn(0, 1)
told = [heard() for _ in range(4)]
spawned = {one["row"]: one["pid"] for one in told if one["event"] == "spawned"}
ready = {one["row"]: one["pid"] for one in told if one["event"] == "ready"}
assert spawned == ready and set(ready) == {0, 1}, told
for row, pid in ready.items():
    assert open(f"/proc/{pid}/cmdline").read().startswith(f"gtask: A {row} text://")
    assert f"PPid:\\t{os.getpid()}\\n" in open(f"/proc/{pid}/status").read()
    os.kill(pid, signal.SIGTERM)
    assert code_of(pid) == 0
ours.close()
assert code_of(mold) == 0
""")


def test_its_workers_have_not_its_channel(run):
    run("""
mold = start()
heard()
spawn(0)
heard()
pid = heard()["pid"]
packets = {line.split()[6] for line in open("/proc/net/unix") if line.split()[4] == "0005"}
def ends(pid):
    files = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return {file for file in files if file[8:-1] in packets}
assert len(ends(mold) - ends(pid)) == 1 and not ends(pid) - ends(mold)
""")


def test_its_workers_accept_from_the_masters_listener(run):
    run("""
start()
heard()
spawn(5)
pid = heard()["pid"]
assert heard()["event"] == "ready"
with socket.create_connection(listener.getsockname()) as caller:
    caller.sendall(b'{"function":"pid","args":[]}\\n')
    assert int(caller.recv(100)) == pid
""")


def test_code_that_does_not_load_is_told_and_ends_it(run):
    run(
        """
mold = start()
told = heard()
assert (told["event"], told["code"]) == ("failed", os.EX_CONFIG)
assert told["problems"] == ["settings [worker:A] tasks: cannot import some_tasks: ImportError: no"
    f" ({os.getcwd()}/some_tasks.py, line 1)"], told
assert code_of(mold) == os.EX_CONFIG
""",
        tasks="raise ImportError('no')\n",
    )


def test_a_scripts_workers_are_loaded_as_they_are(run):
    run("""
mold = start([Worker("text://127.0.0.1:0", name="A", tasks=["no_such"])])
told = heard()
assert (told["event"], told["code"]) == ("failed", 1)
assert told["problems"][0].startswith("ModuleNotFoundError: No module named 'no_such'")
assert code_of(mold) == 1
""")


def test_a_worker_that_cannot_be_made_is_told_of(run):
    run("""
start()
heard()
spawn(0, service="B")
told = [heard(), heard()]
spawned = next(one["pid"] for one in told if one["event"] == "spawned")
assert {"event": "failed", "pid": spawned, "row": 0, "reason": "KeyError: 'B'"} in told
assert code_of(spawned) == 1
""")


def test_a_process_that_cannot_be_forked_is_told_of(run):
    run(
        """
start()
heard()
spawn(0)
assert heard() == {"event": "failed", "service": "A", "row": 0, "reason": "cannot fork: no more"}
spawn(1)
assert heard()["row"] == 1
""",
        tasks=TASKS
        + "import gtask.server.forks\n"
        + "def fork(self): raise OSError(11, 'no more')\n"
        + "gtask.server.forks.Forker.fork = fork\n",
    )


def test_what_a_module_prints_is_printed_once(run, tmp_path):
    run(
        """
start()
heard()
spawn(0, 1)
pids = {heard()["pid"] for _ in range(4)}
for pid in pids:
    os.kill(pid, signal.SIGTERM)
    code_of(pid)
""",
        tasks=TASKS + "import sys\nsys.stdout = open('printed', 'a')\nprint('once')\n",
    )
    assert (tmp_path / "printed").read_text() == "once\n"
