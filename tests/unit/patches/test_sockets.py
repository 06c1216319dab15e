"""Sockets, names, select and asyncio in threads without a hub; and sockets that several threads use."""

from __future__ import annotations

import pytest

from ...support.patched import run_patched

ECHO = """
import select, selectors, socket
early = socket.socketpair()  # as a module makes it that a mold imports
from gevent.server import StreamServer
def echo(peer, _):
    while data := peer.recv(1000):
        peer.sendall(data)
start_hub()
server = StreamServer(("127.0.0.1", 0), echo)
server.start()
def connect():
    return socket.create_connection(server.address, timeout=20)
def ask(peer):
    peer.sendall(b"hello")
    return peer.recv(100)
"""


def run(code: str) -> None:
    run_patched(ECHO + code, hub=False)


def test_connections_in_threads_and_greenlets_at_once():
    run("""
def use():
    with connect() as peer:
        for _ in range(20):
            assert ask(peer) == b"hello"
    return get_hub_if_exists() is None
jobs = [threads.spawn(use) for _ in range(3)] + [gevent.spawn(use) for _ in range(3)]
assert [job.get() for job in jobs] == [True] * 3 + [False] * 3
""")


def test_a_connection_that_is_kept_is_used_wherever():
    run("""
for make in (connect, lambda: in_thread(connect)):
    peer = make()
    for _ in range(2):
        assert ask(peer) == in_thread(ask, peer) == b"hello"
    def own_hub():
        gevent.sleep(0)
        return ask(peer)
    assert in_thread(own_hub) == b"hello"
    peer.settimeout(0.05)
    def wait():
        try:
            peer.recv(1)
        except TimeoutError as error:
            return str(error)
    assert wait() == in_thread(wait) == "timed out"
    in_thread(peer.close)
    gevent.sleep(0.05)
    assert peer.fileno() == -1
""")


def test_one_that_was_made_before_the_hub_stops_nobody():
    run("""
waiter = gevent.spawn(early[0].recv, 10)
with Ticks() as ticks:
    gevent.sleep(0.1)
    early[1].sendall(b"late")
    assert waiter.get(timeout=20) == b"late"
assert ticks.count > 5
early[0].close(); early[1].close()
""")


def test_descriptors_are_closed_wherever_the_socket_was_made():
    run("""
def fds(least=0):
    # once there are no more than that, or after a while
    until = time.monotonic() + 5
    while True:
        gevent.sleep(0.05)
        count = len(os.listdir("/proc/self/fd"))
        if count <= least or not least or time.monotonic() > until:
            return count
in_thread(lambda: connect().close())
before = fds()
for _ in range(5):
    in_thread(lambda: connect().close())
    in_thread(connect).close()
    peer = connect()
    in_thread(peer.close)
    a, b = in_thread(socket.socketpair)
    os.close(a.detach()); in_thread(b.close)
assert fds(before) == before, (fds(), before)
def in_a_thread_of_its_own():
    gevent.sleep(0)
    kept.append(connect())
kept = []
def start():
    thread = threading.Thread(target=in_a_thread_of_its_own)
    thread.start(); thread.join()
in_thread(start)
assert ask(kept[0]) == b"hello"  # its hub has gone
kept.pop().close()
assert fds(before) == before, (fds(), before)
""")


def test_names_are_resolved():
    run("""
def resolve():
    return socket.gethostbyname("localhost"), bool(socket.getaddrinfo("localhost", 80)), get_hub_if_exists() is None
assert in_thread(resolve) == ("127.0.0.1", True, True)
assert resolve()[0] == "127.0.0.1"
""")


def test_select_poll_and_selectors():
    run("""
def look():
    a, b = socket.socketpair()
    poll = select.poll()
    poll.register(a, select.POLLIN)
    with selectors.DefaultSelector() as selector, selectors.SelectSelector() as other:
        selector.register(a, selectors.EVENT_READ); other.register(a, selectors.EVENT_READ)
        before = select.select([a], [], [], 0.01)[0], poll.poll(1), selector.select(0.01), other.select(0)
        b.send(b"x")
        after = select.select([a], [], [], 5)[0], poll.poll(5000), selector.select(5), other.select(5)
    a.close(); b.close()
    return [len(x) for x in before], [len(x) for x in after]
assert look() == in_thread(look) == ([0] * 4, [1] * 4)
""")


def test_sleep_is_the_systems_where_there_is_no_hub():
    run("""
def nap():
    time.sleep(0.05)
    return get_hub_if_exists() is None
assert in_thread(nap)
with Ticks() as ticks:
    time.sleep(0.1)
assert ticks.count > 5
""")


ASYNC = """
import asyncio
async def main():
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(b"abc")
    data = await reader.readexactly(3)
    writer.close()
    process = await asyncio.create_subprocess_exec("sh", "-c", "echo out; exit 3", stdout=-1)
    out, _ = await process.communicate()
    name = await asyncio.to_thread(socket.gethostbyname, "localhost")
    await asyncio.sleep(0.01)
    return data, out, process.returncode, name
right = b"abc", b"out\\n", 3, "127.0.0.1"
"""


@pytest.mark.parametrize("at_once", [1, 3])
def test_asyncio_in_threads(at_once):
    run(
        ASYNC
        + f"""
jobs = [threads.spawn(asyncio.run, main()) for _ in range({at_once})]
assert [job.get() for job in jobs] == [right] * {at_once}
"""
    )


def test_asyncio_in_one_greenlet_stops_nobody():
    run(
        ASYNC
        + """
with Ticks() as ticks:
    assert gevent.spawn(asyncio.run, main()).get() == right
"""
    )
