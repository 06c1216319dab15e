"""The short fork: when it is taken, and that its child is as one of `os.fork`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gtask.server.forks import Forker

ROOT = Path(__file__).resolve().parents[3]


def run(program: str) -> None:
    """Run `program` in a process that has no threads of pytest's."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def registered(monkeypatch):
    """What `os.register_at_fork` has been called with, which cannot be undone."""
    calls: list[dict] = []
    monkeypatch.setattr(os, "register_at_fork", lambda **hooks: calls.append(hooks))
    return calls


@pytest.fixture
def one_thread(monkeypatch):
    monkeypatch.setattr(os, "listdir", lambda path: ["1"])


@pytest.mark.parametrize(
    ("code", "is_short"),
    [
        ("", True),
        ("os.register_at_fork(before=print)", False),
        ("_thread.start_new_thread(time.sleep, (100,))", False),
    ],
)
def test_the_short_fork_is_for_molds_where_nobody_could_tell(code, is_short):
    run(f"""
import os, random, _thread, time
from gtask.server.forks import Forker
with Forker() as forker:
    {code or "pass"}
assert forker.is_short is {is_short}
random.seed(1)
pid = forker.fork()
if pid == 0:
    child = random.random()
    random.seed(1)
    os._exit(child == random.random())
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""")


def test_a_fork_that_the_kernel_refuses_is_an_error():
    run("""
import errno, os, resource
from gtask.server.forks import Forker
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with Forker() as forker:
    pass
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    pid = forker.fork()
except OSError as error:
    os._exit(0 if error.errno == errno.EAGAIN else 2)
os._exit(1)
""")


def test_an_exception_goes_on_in_the_child():
    run("""
import os
from gtask.server.forks import Forker
with Forker() as forker:
    pass
try:
    pid = forker.fork()
    if pid == 0:
        raise LookupError("in the child")
except LookupError:
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
""")


def test_nothing_is_known_of_modules_that_were_not_watched(one_thread):
    assert not Forker().is_short


def test_hooks_are_passed_on_and_seen(registered, one_thread):
    with Forker() as forker:
        os.register_at_fork(before=print)
    assert registered == [{"before": print}]
    assert not forker.is_short


def test_hooks_registered_later_are_not_looked_at_any_more(registered, one_thread):
    register = os.register_at_fork
    with Forker() as forker:
        assert os.register_at_fork is not register
    assert os.register_at_fork is register
    assert forker.is_short


def test_the_function_is_put_back_when_a_module_fails_to_load(registered, one_thread):
    register = os.register_at_fork
    with pytest.raises(ImportError), Forker():
        raise ImportError
    assert os.register_at_fork is register


def test_where_no_proc_tells_of_threads_the_long_way_is_taken(registered, monkeypatch):
    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "listdir", missing)
    with Forker() as forker:
        pass
    assert not forker.is_short
