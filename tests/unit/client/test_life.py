"""What is left when clients, threads and programs end: nothing; and what is said of calls then."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import ssl
import subprocess
import sys
import threading
import time
from socket import SHUT_RDWR

import gevent
import pytest

from gtask.client import TaskClient, wait
from gtask.errors import TaskCancelled

from ...support.spawn import ROOT
from .peers import Outcome, pool_of, wait_for


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_client_that_is_dropped_leaves_nothing(peer):
    server = peer()
    before = None
    for _ in range(10):
        client = TaskClient(server.url)
        assert client.call("f", [1]).get(timeout=5) == [1]
        del client
        gc.collect()
        wait_for(lambda: all(socket.fileno() < 0 for socket in server.sockets))
        before = before or descriptors()
    assert descriptors() <= before


def test_a_client_that_is_dropped_ends_when_its_last_call_has(peer):
    server = peer(lambda line: gevent.spawn_later(0.05, line.result, "late"))
    outcome = Outcome()
    client = TaskClient(server.url)
    client.call("f", **outcome.callbacks())
    pool = pool_of(client)
    del client
    gc.collect()
    wait_for(lambda: outcome.ends)
    assert outcome.results == ["late"]
    wait_for(lambda: pool.is_closed and not pool.connections)


def test_threads_with_a_client_each_leave_nothing(peer):
    server = peer()

    def work(ends):
        client = TaskClient(server.url)
        assert client.call("f", [1]).get(timeout=5) == [1]
        ends(client)

    def run(ends):
        thread = threading.Thread(target=work, args=(ends,))
        thread.start()
        wait_for(lambda: not thread.is_alive())

    for ends in (TaskClient.close, lambda _: None):
        run(ends)
        gc.collect()
        before = descriptors() - len(server.sockets)
        for _ in range(10):
            run(ends)
        gc.collect()
        assert descriptors() - len(server.sockets) <= before + 2


def test_copies_share_nothing(peer):
    client = TaskClient(peer().url, retries=3, timeout=5, connections=2)
    client.call("f", [1]).get(timeout=5)
    for twin in (copy.copy(client), copy.deepcopy(client), pickle.loads(pickle.dumps(client))):
        assert twin.endpoints == client.endpoints
        assert (twin.retries, twin.timeout, twin._options) == (3, 5, client._options)
        assert twin.call("f", [2]).get(timeout=5) == [2]
        assert pool_of(twin) is not pool_of(client)
        twin.close()
    client.close()


def test_what_can_be_neither_copied_nor_pickled_says_so(peer, connect):
    context = ssl.create_default_context()
    secure = TaskClient("text://127.0.0.1:1", ssl_context=context)
    assert copy.deepcopy(secure)._options.ssl_context is context
    with pytest.raises(TypeError, match="ssl_context"):
        pickle.dumps(secure)
    call = connect(peer()).call("f")
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            duplicate(call)


def test_close_tells_callbacks_before_it_returns_and_counts_the_others(peer, connect, caplog):
    client = connect(peer(lambda line: None))
    outcome = Outcome()
    client.call("f", **outcome.callbacks())
    for _ in range(3):
        client.call("f")
    client.close()
    gevent.sleep(0)
    assert outcome.ends == 1
    assert "closed with 3 calls that nobody is told of" in caplog.text


def test_a_call_in_another_threads_hands(peer, connect):
    server = peer(lambda line: gevent.spawn_later(0.2, line.result, 1))
    client = connect(server)
    call, other = client.call("f"), client.call("f")
    raised, linked, cancelled = [], [], []

    def work():
        for touch in (call.get, lambda: wait([call]), lambda: gevent.wait([call])):
            try:
                touch()
            except RuntimeError as error:
                raised.append(str(error))
        call.link(lambda _: linked.append(threading.get_ident()))
        cancelled.append(other.cancel())

    thread = threading.Thread(target=work)
    thread.start()
    with pytest.raises(TaskCancelled):
        other.get(timeout=5)
    assert call.get(timeout=5) == 1
    wait_for(lambda: linked)
    assert linked == [threading.get_ident()]
    assert cancelled == [True]
    assert len(raised) == 3
    assert all("in the thread that made it" in text for text in raised)


PROGRAM = """
import sys, time
from gtask import TaskClient
client, nobody = TaskClient(sys.argv[1]), TaskClient("text://127.0.0.1:1")
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("client.call('f', [1]).get()", ""),
        ("nobody.call('f'); nobody.call('g', on_result=print)", "2 calls open, of which 2 were"),
        ("nobody.call('f', on_error=lambda e: print(type(e).__name__))", "TaskCancelled\n"),
        ("calls = [client.call('never')]; print(calls[0].get(0.2))", "with 1 calls open"),
        ("with client: client.call('f')", "closed with 1 calls"),
    ],
)
def test_the_end_of_a_plain_program(peer, text, says):
    server = peer(lambda line: line.result(1) if line.method != "never" else None)
    command = [sys.executable, "-c", PROGRAM + text, server.url]
    with subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        wait_for(lambda: process.poll() is not None, 20)
        said = process.stdout.read()
    assert said == "" if not says else says in said, said


def test_a_goodbye_that_lies_unread_costs_no_call(peer, connect):
    """The loop does not run while the peer says goodbye, as in a plain program."""
    server = peer()
    client = connect(server, connections=2)
    wait([client.call("f", [number]) for number in range(10)])
    for goodbye in (b'{"jsonrpc":"2.0","method":"gtask.goaway"}\n', b""):
        for accepted in server.sockets:
            if accepted.fileno() >= 0:
                accepted._sock.send(goodbye)
                accepted._sock.shutdown(SHUT_RDWR)
        time.sleep(0.01)  # this thread's loop stands still
        assert client.call("f", [1]).get(timeout=5) == [1]
