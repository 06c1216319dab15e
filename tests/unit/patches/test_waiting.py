"""`os.waitpid` and its kin: they give what the system's give, and stop nobody."""

from __future__ import annotations

import pytest

from ...support.patched import run_patched

CHILD = """
def child(code, seconds=0.3):
    pid = os.fork()
    if pid == 0:
        native_sleep(seconds)
        os._exit(code)
    return pid
"""


@pytest.mark.parametrize(
    "wait",
    [
        "os.waitpid(pid, 0)[1]",
        "os.waitpid(-1, 0)[1]",
        "os.waitpid(0, 0)[1]",
        "os.waitpid(pid, os.WUNTRACED)[1]",
        "os.wait()[1]",
        "os.wait3(0)[1]",
        "os.wait4(pid, 0)[1]",
        "os.waitid(os.P_PID, pid, os.WEXITED).si_status << 8",
        "os.waitid(os.P_ALL, 0, os.WEXITED).si_status << 8",
    ],
)
def test_others_go_on_meanwhile(wait):
    run_patched(
        CHILD
        + f"""
pid = child(7)
with Ticks() as ticks:
    assert {wait} == 7 << 8
assert ticks.count > 5, ticks.count
pid = child(8, 0.01)
def wait(pid):
    return {wait}
assert in_thread(wait, pid) == 8 << 8
"""
    )


def test_what_cannot_be_waited_for_is_an_error_at_once():
    run_patched(
        """
for wait in (lambda: os.waitpid(1, 0), lambda: os.wait(), lambda: os.waitid(os.P_PID, 1, os.WEXITED)):
    try:
        wait()
    except ChildProcessError:
        continue
    raise AssertionError
"""
    )


def test_who_does_not_want_to_wait_does_not():
    run_patched(
        CHILD
        + """
pid = child(1)
assert os.waitpid(pid, os.WNOHANG) == (0, 0)
assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is None
with gevent.Timeout(0.05, False):
    os.waitpid(pid, 0)
assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT).si_status == 1
assert os.waitpid(pid, 0) == (pid, 1 << 8)
"""
    )


def test_a_process_is_joined_and_has_its_exit_code():
    run_patched(
        """
import multiprocessing, subprocess
context = multiprocessing.get_context("fork")
def nap(seconds):
    native_sleep(seconds)
    os._exit(7)
subprocess.run(["true"])
for timeout in (None, 5):
    process = context.Process(target=nap, args=(0.3,))
    process.start()
    with Ticks() as ticks:
        process.join(timeout)
    assert (process.exitcode, process.is_alive()) == (7, False)
    assert ticks.count > 5
process = context.Process(target=nap, args=(5,))
process.start()
process.join(0.1)
assert process.is_alive()
process.terminate()
process.join()
assert process.exitcode == -15
"""
    )


def test_commands():
    run_patched(
        """
with Ticks() as ticks:
    assert os.system("sleep 0.2; exit 3") == 3 << 8
    assert os.system("kill -9 $$") == 9
    assert os.popen("sleep 0.2; echo x").read() == "x\\n"
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "sleep 0.2; exit 4") == 4
assert ticks.count > 20
assert in_thread(os.system, "exit 3") == 3 << 8
"""
    )
