"""Threads: native ones in native threads, greenlets in the main one, and each can wait for the other."""

from __future__ import annotations

from ...support.patched import run_patched


def test_a_thread_that_a_thread_has_started_is_native_and_outlives_it():
    run_patched(
        """
native_id = monkey.get_original("_thread", "get_ident")
started, ids = [], []
def work():
    ids.append((native_id(), threading.current_thread().name))
    native_sleep(0.3)
def start():
    thread = threading.Thread(target=work, name="mine")
    thread.start()
    started.append(thread)
    return native_id()
starter = in_thread(start)
assert started[0].is_alive()
with Ticks() as ticks:
    started[0].join()
assert ticks.count > 5 and not started[0].is_alive()
assert ids[0][1] == "mine" and ids[0][0] not in (starter, native_id())
threading.Thread(target=work).start()
assert ids[1][0] == native_id()
"""
    )


def test_each_can_be_waited_for_from_the_other():
    run_patched(
        """
green = threading.Thread(target=time.sleep, args=(0.1,))
green.start()
def join(thread):
    first = thread.join(0.001)
    alive = thread.is_alive()
    thread.join()
    return alive, thread.is_alive()
assert in_thread(join, green) == (True, False)
def start():
    thread = threading.Thread(target=native_sleep, args=(0.1,))
    thread.start()
    return thread
assert join(in_thread(start)) == (True, False)
def timer():
    fired = threading.Event()
    threading.Timer(0.01, fired.set).start()
    return fired.wait(20)
assert timer() and in_thread(timer)
"""
    )


def test_thread_locals_and_names_are_a_threads_own():
    run_patched(
        """
local = threading.local()
def work():
    seen.append((getattr(local, "x", None), threading.get_ident() == threading.current_thread().ident))
    local.x = 1
seen = []
def start():
    local.x = 0
    for _ in range(2):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    return local.x
assert in_thread(start) == 0
assert seen == [(None, True)] * 2
"""
    )


def test_an_exception_ends_its_thread_and_is_told():
    told = run_patched(
        """
sys.stderr = sys.stdout
def fail():
    raise ValueError("no")
def start(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()
    return thread.is_alive()
assert not in_thread(start, fail)
assert not in_thread(start, sys.exit)
"""
    )
    assert "ValueError: no" in told
    assert "SystemExit" not in told


def test_the_hub_of_a_thread_ends_with_it():
    run_patched(
        """
def start():
    thread = threading.Thread(target=gevent.sleep, args=(0,))
    thread.start()
    thread.join()
in_thread(start)
time.sleep(0.05)
before = len(os.listdir("/proc/self/fd"))
for _ in range(5):
    in_thread(start)
time.sleep(0.05)
assert len(os.listdir("/proc/self/fd")) == before
"""
    )


def test_low_level_threads():
    run_patched(
        """
import _thread
seen = []
def start():
    done = _thread.allocate_lock()
    done.acquire()
    def work(a, b=0):
        seen.append((a, b, threading.get_ident()))
        done.release()
    ident = _thread.start_new_thread(work, (1,), {"b": 2})
    done.acquire()
    return ident
assert in_thread(start) == seen[0][2]
assert start() == seen[1][2]
assert seen[0][:2] == seen[1][:2] == (1, 2)
"""
    )
