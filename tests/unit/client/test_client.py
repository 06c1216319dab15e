"""Arguments, threads, forks: `TaskClient` itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from gtask.client import TaskClient, life

from .peers import wait_for


@pytest.mark.parametrize(
    ("arguments", "options", "match"),
    [
        ([], {}, "at least one"),
        (["websocket://127.0.0.1:1"], {}, "text:// only"),
        (["127.0.0.1:1"], {}, "no scheme"),
        (["text://127.0.0.1:1"], {"dialect": "php"}, "dialect"),
        (["text://127.0.0.1:1"], {"connections": 0}, "1 or more"),
        (["text://127.0.0.1:1"], {"max_pending": 0}, "1 or more"),
        (["text://127.0.0.1:1"], {"timeout": -1}, "timeout"),
        (["text://127.0.0.1:1"], {"timeout": float("nan")}, "timeout"),
        (["text://127.0.0.1:1"], {"retries": -1}, "retries"),
    ],
)
def test_arguments_that_make_no_sense(arguments, options, match):
    with pytest.raises(ValueError, match=match):
        TaskClient(arguments, **options)


def test_task_arguments_that_cannot_be_sent(connect):
    client = connect("text://127.0.0.1:1", max_frame_bytes=10_000)
    with pytest.raises(TypeError, match="dict or a list, not str"):
        client.call("f", "text")
    with pytest.raises(ValueError, match="f: arguments are not JSON"):
        client.call("f", {"a": object()})
    with pytest.raises(ValueError, match="not JSON"):
        client.call("f", [float("nan")])
    with pytest.raises(ValueError, match="too many"):
        client.call("f", ["x" * 10_000])
    with pytest.raises(ValueError, match="timeout"):
        client.call("f", timeout=float("inf"))


def test_one_url_will_do_and_scheme_case_is_free(peer):
    server = peer()
    with TaskClient(server.url.replace("text", "Text")) as client:
        assert client.call("f", (1, 2)).get(timeout=5) == [1, 2]
        assert client.call("f").get(timeout=5) is None
    assert server.lines[1].message == {"jsonrpc": "2.0", "method": "f", "id": 2}


def test_a_name_is_looked_up(peer):
    with TaskClient(peer().url.replace("127.0.0.1", "localhost")) as client:
        assert client.call("f", [1]).get(timeout=5) == [1]


def test_no_timeout_at_all_is_not_told(peer, connect):
    server = peer()
    client = connect(server, timeout=0)
    client.call("f", [1]).get(timeout=5)
    assert server.lines[0].message["method"] == "f"
    client.call("f", [1], timeout=3).get(timeout=5)
    assert server.lines[1].message["method"] == "gtask.call"


def test_each_native_thread_has_connections_of_its_own_and_leaves_nothing(peer, connect):
    server = peer()
    client = connect(server)
    assert client.call("f", [0]).get(timeout=5) == [0]
    results = []

    def work(number):
        results.append(client.call("f", [number]).get(timeout=10))

    def run(numbers):
        for number in numbers:
            thread = threading.Thread(target=work, args=(number,))
            thread.start()
            wait_for(lambda: not thread.is_alive())  # noqa: B023  (waited for here)

    run(range(3))
    before = len(os.listdir("/proc/self/fd")) - len(server.sockets)
    run(range(3, 13))
    assert sorted(results) == [[number] for number in range(13)]
    assert len(client._pools) == 1
    assert len(os.listdir("/proc/self/fd")) - len(server.sockets) <= before + 2


FORK = """
import os, sys
from gtask import TaskClient
client = TaskClient(sys.argv[1])
assert client.call("f", [0]).get(timeout=10) == [0]
pid = os.fork()
for number in range(200):
    assert client.call("f", [pid, number]).get(timeout=10) == [pid, number]
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    print("ok")
else:
    os._exit(0)
"""


def test_a_forked_child_leaves_its_parents_connections_alone(peer):
    command = [sys.executable, "-c", FORK, peer().url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        wait_for(lambda: process.poll() is not None, 20)
        assert process.stdout.read() == "ok\n"


def test_clients_are_not_kept_alive(peer):
    client = TaskClient(peer().url)
    assert client in life.clients
    client.close()
    del client
    assert not [c for c in life.clients if not c._is_closed and not c._pools]
