"""`Lock`, and what the standard library builds of it, between greenlets and native threads."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.exceptions import BlockingSwitchOutError
from gevent.threadpool import ThreadPool

from gtask.patches.locks import Lock

from ...support.hub import until
from ...support.patched import run_patched


@pytest.fixture
def threads():
    pool = ThreadPool(4)
    yield pool
    pool.kill()


def test_it_is_the_standard_one_where_nobody_waits():
    lock = Lock()
    with lock:
        assert lock.locked()
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0.001)
        assert not lock.acquire(True, 0)
        assert "locked" in repr(lock)
    assert not lock.locked()
    with pytest.raises(RuntimeError):
        lock.release()


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((False, 1), ValueError), ((True, -2), ValueError), ((True, 1e30), OverflowError)],
)
def test_arguments_that_make_no_sense(arguments, error):
    with pytest.raises(error):
        Lock().acquire(*arguments)


def test_a_time_limit_is_kept_in_a_greenlet_and_in_a_thread(threads):
    lock = Lock()
    with lock:
        for wait in (
            lambda: lock.acquire(True, 0.05),
            lambda: threads.spawn(lock.acquire, True, 0.05).get(),
        ):
            began = time.monotonic()
            assert wait() is False
            assert 0.04 < time.monotonic() - began < 2


def test_it_goes_from_a_greenlet_to_a_thread_and_back(threads):
    lock, seen = Lock(), []

    def hold(name):
        with lock:
            seen.append(name)

    lock.acquire()
    waiting = [threads.spawn(hold, "thread"), gevent.spawn(hold, "greenlet")]
    gevent.sleep(0.05)
    assert seen == []
    lock.release()
    for one in waiting:
        one.get(timeout=5)
    assert sorted(seen) == ["greenlet", "thread"]
    lock.acquire()
    waiter = gevent.spawn(hold, "last")
    gevent.sleep(0)
    threads.spawn(lock.release).get()
    waiter.get(timeout=5)
    assert not lock.locked()


def test_greenlets_have_it_in_the_order_in_which_they_came():
    lock, order = Lock(), []

    def hold(name):
        with lock:
            order.append(name)
            gevent.sleep(0)

    with lock:
        greenlets = [gevent.spawn(hold, name) for name in range(5)]
        gevent.sleep(0)
    gevent.joinall(greenlets, timeout=5)
    assert order == list(range(5))


@pytest.mark.parametrize("how", ["kill", "timeout"])
def test_one_that_gives_up_does_not_keep_it_from_others(how):
    lock, had = Lock(), []

    def hold():
        if lock.acquire(True, 0.02 if how == "timeout" else -1):
            had.append(1)
            lock.release()

    with lock:
        leaving = gevent.spawn(hold)
        gevent.sleep(0)
        staying = gevent.spawn(lock.acquire)
        gevent.sleep(0)
        if how == "kill":
            leaving.kill(block=False)
        else:
            time.sleep(0.03)
    staying.get(timeout=5)
    leaving.join(timeout=5)
    assert lock._waiters == []


def test_the_hub_waits_for_a_moment_only(threads):
    lock, seen = Lock(), []

    def take():
        try:
            seen.append(lock.acquire())
        except BlockingSwitchOutError as error:
            seen.append(error)

    loop = gevent.get_hub().loop
    with lock:
        loop.run_callback(take)
        loop.run_callback(lambda: seen.append(lock.acquire(timeout=0.001)))
        until(lambda: len(seen) == 2)
    assert isinstance(seen[0], BlockingSwitchOutError)
    assert seen[1] is False
    loop.run_callback(take)
    until(lambda: len(seen) == 3)
    assert seen[2] is True
    lock.release()


def test_a_fork_makes_it_new():
    lock = Lock()
    lock.acquire()
    lock._at_fork_reinit()
    assert lock.acquire(False)


MANY = """
import collections, queue
N = 500
def count(pause):
    global total
    for i in range(N):
        with lock:
            before = total
            if i % 50 == 0:
                time.sleep(pause)
            total = before + 1
def both(function, *args, each=2):
    jobs = [threads.spawn(function, *args) for _ in range(each)]
    jobs += [gevent.spawn(function, *args) for _ in range(each)]
    return jobs
"""


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Condition", "BoundedSemaphore"])
def test_a_counter_behind_it_is_right(kind):
    run_patched(
        MANY
        + f"""
lock, total = threading.{kind}(), 0
for job in both(count, 0.0001):
    job.get()
assert total == 4 * N, total
"""
    )


@pytest.mark.parametrize("kind", ["Queue(10)", "SimpleQueue()", "LifoQueue()", "PriorityQueue(10)"])
def test_a_queue_loses_nothing(kind):
    run_patched(
        MANY
        + f"""
q = queue.{kind}
def put():
    for i in range(N):
        q.put(i)
def get():
    return sum(q.get(timeout=20) for _ in range(N))
both(put)
assert sum(job.get() for job in both(get)) == 4 * sum(range(N))
def nothing():
    try:
        return q.get(True, 0.01)
    except queue.Empty:
        return "nothing"
assert in_thread(nothing) == nothing() == "nothing"
"""
    )


def test_events_and_conditions_wake_everybody():
    run_patched(
        MANY
        + """
events = [threading.Event() for _ in range(50)]
condition, ready = threading.Condition(), []
def wait():
    return all(event.wait(20) for event in events)
def wait_condition():
    with condition:
        return condition.wait_for(lambda: ready, 20)
jobs = both(wait) + both(wait_condition)
def work():
    for event in events:
        event.set()
        native_sleep(0.0005)
    with condition:
        ready.append(1)
        condition.notify_all()
in_thread(work)
assert all(job.get() for job in jobs)
barrier = threading.Barrier(4)
assert sorted(job.get() for job in both(barrier.wait, 20)) == [0, 1, 2, 3]
"""
    )


def test_one_executor_serves_threads_and_greenlets():
    run_patched(
        MANY
        + """
from concurrent.futures import ThreadPoolExecutor, wait
executor = ThreadPoolExecutor(2)
def use(x):
    futures = [executor.submit(lambda: x * 2) for _ in range(20)]
    wait(futures, timeout=20)
    return {future.result(20) for future in futures}
assert [job.get() for job in both(use, 4)] == [{8}] * 4
def own(x):
    with ThreadPoolExecutor(3) as mine:
        return list(mine.map(lambda y: y * 2, range(5)))
assert [job.get() for job in both(own, 4)] == [[0, 2, 4, 6, 8]] * 4
"""
    )


def test_logging_from_both_gives_every_line():
    lines = run_patched(
        MANY
        + """
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
def log(name):
    for i in range(N):
        logging.warning("%s %d", name, i)
        if i % 50 == 0:
            time.sleep(0.0001)
for job in both(log, "a"):
    job.get()
"""
    )
    assert len(lines.splitlines()) == 4 * 500
