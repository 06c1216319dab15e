"""Child processes are waited for one by one: by gevent's Popen, in every thread, and by everybody else."""

from __future__ import annotations

from ...support.patched import run_patched


def test_a_popen_in_each_thread_has_its_exit_status():
    run_patched(
        """
import subprocess
def run(code):
    return subprocess.run(["sh", "-c", f"echo {code}; exit {code}"], stdout=subprocess.PIPE, timeout=20)
jobs = [gevent.spawn(run, 5), threads.spawn(run, 6), gevent.spawn(run, 7)]
done = [job.get() for job in jobs]
assert [(each.returncode, each.stdout) for each in done] == [(5, b"5\\n"), (6, b"6\\n"), (7, b"7\\n")]
def own_hub():
    gevent.sleep(0)  # from now on it is gevent's Popen in this thread, too
    return run(8).returncode
assert in_thread(own_hub) == 8
"""
    )


def test_no_handler_takes_the_status_of_others_children():
    run_patched(
        """
import signal, subprocess
assert subprocess.run(["true"]).returncode == 0
pid = os.fork()
if pid == 0:
    os._exit(7)
time.sleep(0.1)
assert os.waitpid(pid, 0) == (pid, 7 << 8)
hub = gevent.get_hub()
hub.destroy(destroy_loop=True)
gevent.get_hub()
assert not int(next(l for l in open("/proc/self/status") if l.startswith("SigCgt")).split()[1], 16) & 1 << 16
"""
    )


def test_two_that_wait_for_one_process_both_learn():
    run_patched(
        """
import subprocess
for wait in (lambda pid: os.waitpid(pid, 0), lambda pid: in_thread(os.waitpid, pid, 0)):
    process = subprocess.Popen(["sh", "-c", "sleep 0.1; exit 3"])
    assert wait(process.pid) == (process.pid, 3 << 8)
    assert process.wait(5) == 3
process = subprocess.Popen(["sh", "-c", "exit 4"])
assert process.wait(5) == 4
assert os.waitpid(process.pid, 0) == (process.pid, 4 << 8)
"""
    )


def test_what_nobody_knows_the_end_of_is_told_as_255():
    run_patched(
        """
import subprocess
process = subprocess.Popen(["sh", "-c", "exit 4"])
monkey.get_original("os", "waitpid")(process.pid, 0)
assert process.wait(5) == 255
watcher = gevent.get_hub().loop.child(process.pid)  # there is no such process any more
with watcher:
    gevent.get_hub().wait(watcher)
assert watcher.rstatus == 255 << 8
"""
    )


def test_any_child_may_be_watched():
    run_patched(
        """
import gevent.os
pid = os.fork()
if pid == 0:
    os._exit(2)
assert gevent.os.waitpid(-1, 0) == (pid, 2 << 8)
"""
    )


def test_without_pidfds_it_is_said_and_works():
    told = run_patched(
        """
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
from gtask.patches import children
def refuse(*_):
    raise OSError(38, "Function not implemented")
os.pidfd_open = refuse
children.install()
import subprocess
assert subprocess.run(["sh", "-c", "exit 3"]).returncode == 3
pid = os.fork()
if pid == 0:
    os._exit(2)
with Ticks() as ticks:
    assert os.waitpid(pid, 0) == (pid, 2 << 8)
"""
    )
    assert "no pidfd_open(2)" in told


def test_no_descriptor_is_left():
    run_patched(
        """
import subprocess
def run():
    subprocess.run(["true"])
    pid = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(pid, 0)
run(); in_thread(run)
before = len(os.listdir("/proc/self/fd"))
for _ in range(10):
    run(); in_thread(run)
assert len(os.listdir("/proc/self/fd")) == before
"""
    )
