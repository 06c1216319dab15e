"""A forked child: a plain process, in which nothing of its parent's goes on."""

from __future__ import annotations

import pytest

from ...support.patched import run_patched

COMMON = """
import signal, socket, subprocess
from gtask.patches import forked
left = []
forked.when_forked(lambda: left.append(os.getpid()))
def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
def in_greenlet(function, *args):
    return gevent.spawn(function, *args).get()
"""


@pytest.mark.parametrize("where", ["in_greenlet", "in_thread"])
@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("return 5", 0),
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("os._exit(9)", 9),
        ("sys.exit('x')", 1),
    ],
)
def test_it_ends_where_its_code_ends(where, end, code):
    run_patched(
        COMMON
        + f"""
def fork():
    pid = os.fork()
    if pid == 0:
        {end}
    return pid
from gtask.patches.leftovers import end_if_forked
def call():
    try:
        pid = fork()
    except BaseException as error:
        end_if_forked(error)
        raise
    end_if_forked(None)
    return pid
assert code_of({where}(call)) == {code}
assert left == []
"""
    )


def test_a_greenlet_ends_the_process_without_being_asked():
    told = run_patched(
        COMMON
        + """
sys.stderr = sys.stdout
def fork(error):
    pid = os.fork()
    if pid == 0 and error:
        raise error
    return pid
assert code_of(in_greenlet(fork, None)) == 0
assert code_of(in_greenlet(fork, ValueError("in the child"))) == 1
assert code_of(in_greenlet(fork, SystemExit(4))) == 4
"""
    )
    assert "ValueError: in the child" in told


def test_nothing_else_goes_on_in_it():
    run_patched(
        COMMON
        + """
read, write = os.pipe()
def neighbour():
    for _ in range(20):
        time.sleep(0.01)
        os.write(write, b"%d " % os.getpid())
gevent.spawn(neighbour)
time.sleep(0.03)
def fork():
    pid = os.fork()
    if pid == 0:
        time.sleep(0.3)
        threading.Event().wait(0.05)
        subprocess.run(["true"])
        os._exit(left != [os.getpid()])
    return pid
assert code_of(in_greenlet(fork)) == 0
assert set(os.read(read, 10000).split()) == {b"%d" % os.getpid()}
"""
    )


def test_it_may_do_what_a_plain_process_may():
    run_patched(
        COMMON
        + """
def work():
    import asyncio, queue
    from concurrent.futures import ThreadPoolExecutor
    assert get_hub_if_exists() is None
    with ThreadPoolExecutor(2) as pool:
        assert pool.submit(lambda: 5).result(20) == 5
    assert asyncio.run(asyncio.sleep(0, 6)) == 6
    assert subprocess.run(["sh", "-c", "exit 4"]).returncode == 4
    socket.create_server(("127.0.0.1", 0)).close()
    threading.Thread(target=lambda: None).start()
    assert gevent.spawn(lambda: time.sleep(0.01) or 7).get() == 7  # on a hub of its own
    os._exit(8)
def fork():
    pid = os.fork()
    if pid == 0:
        work()
    return pid
assert code_of(in_greenlet(fork)) == 8
assert code_of(in_thread(fork)) == 8
"""
    )


def test_before_it_is_asked_for_and_after_it_is_taken_back_nothing_is_done():
    run_patched(
        COMMON
        + """
forked.when_forked(None)
pid = os.fork()
if pid == 0:
    os._exit(get_hub_if_exists() is None or left != [])
assert code_of(pid) == 0
"""
    )


def test_forks_of_greenlets_and_threads_at_once_do_not_stop_each_other():
    run_patched(
        COMMON
        + """
def use():
    for _ in range(15):
        assert subprocess.run(["sh", "-c", "exit 5"], preexec_fn=os.setsid).returncode == 5
        assert code_of(os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "exit 6")) == 6
        assert os.popen("echo x").read() == "x\\n"
jobs = [threads.spawn(use) for _ in range(3)] + [gevent.spawn(use) for _ in range(3)]
for job in jobs:
    job.get(timeout=25)
"""
    )
