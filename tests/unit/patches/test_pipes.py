"""`multiprocessing`: pools, queues, pipes and locks, in greenlets and in native threads."""

from __future__ import annotations

import pytest

from ...support.patched import run_patched

USES = {
    "Pool": """
    with context.Pool(2) as pool:
        return pool.map(double, range(5), chunksize=1) == [0, 2, 4, 6, 8]
""",
    "ProcessPoolExecutor": """
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(double, range(5))) == [0, 2, 4, 6, 8]
""",
    "Queue": """
    queue = context.Queue()
    process = context.Process(target=queue.put, args=("x" * 300000,))
    process.start()
    got = queue.get(timeout=20)
    process.join()
    return (len(got), process.exitcode) == (300000, 0)
""",
    "Pipe": """
    ours, theirs = context.Pipe()
    process = context.Process(target=answer, args=(theirs,))
    process.start()
    ours.send("y" * 300000)
    got = ours.recv()
    process.join()
    return got == 300000
""",
    "Lock": """
    lock = context.Lock()
    lock.acquire()
    process = context.Process(target=release, args=(lock,))
    process.start()
    assert not lock.acquire(timeout=0.01)
    assert not lock.acquire(block=False)
    with lock:
        process.join()
    return True
""",
    "Manager": """
    with context.Manager() as manager:
        shared = manager.dict()
        shared["x"] = 1
        return dict(shared) == {"x": 1}
""",
}
COMMON = """
import multiprocessing
from gtask.patches.forked import when_forked
when_forked(lambda: None)
context = multiprocessing.get_context("fork")
def double(x):
    native_sleep(0.05)
    return x * 2
def answer(pipe):
    pipe.send(len(pipe.recv()))
def release(lock):
    native_sleep(0.2)
    lock.release()
def use():
"""


@pytest.mark.parametrize("what", USES)
def test_it_works_in_greenlets_and_in_threads_at_once(what):
    run_patched(
        COMMON
        + USES[what]
        + """
assert in_thread(use)
jobs = [threads.spawn(use) for _ in range(2)] + [gevent.spawn(use) for _ in range(2)]
assert [job.get() for job in jobs] == [True] * 4
"""
    )


def test_others_go_on_while_a_greenlet_waits_for_a_pool():
    run_patched(
        COMMON
        + USES["Pool"]
        + """
with Ticks() as ticks:
    assert use()
assert ticks.count > 5, ticks.count
"""
    )


def test_greenlets_that_wait_for_one_queue_do_not_stop_each_other():
    run_patched(
        COMMON.replace("def use():\n", "")
        + """
queue = context.Queue()
waiters = [gevent.spawn(queue.get) for _ in range(3)]
gevent.sleep(0.05)
for number in range(3):
    queue.put(number)
assert sorted(waiter.get(timeout=20) for waiter in waiters) == [0, 1, 2]
"""
    )
