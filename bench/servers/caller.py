"""The calling side: calls the task of the page, 50 at once, and prints its own figures as JSON.

Usage: caller.py WAY PORT CALLS, where WAY is

task-client  one TaskClient, whose calls share a few kept connections
connection   an AsyncTcpConnection for each task
socket       a bare gevent socket for each task
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from gtask import AsyncTcpConnection, TaskClient  # noqa: E402

TEXT = "x" * 40
ARGS = {"from": "alice@example.org", "to": "bob@example.org", "contents": TEXT}
TASK = json.dumps({"function": "send_mail", "args": ARGS}, separators=(",", ":"))
RESULT = {"sent": 1, "contents": TEXT}
IN_FLIGHT = 50


class Calls:
    """So many calls, each begun when one before it has ended."""

    def __init__(self, many: int) -> None:
        self._left = many
        self._missing = many
        self.done = Event()

    def may_begin(self) -> bool:
        self._left -= 1
        return self._left >= 0

    def ended(self, result: object) -> None:
        assert result == RESULT, result
        self._missing -= 1
        if not self._missing:
            self.done.set()


def with_task_client(port: int, calls: Calls) -> None:
    client = TaskClient([f"text://127.0.0.1:{port}"])

    def call() -> None:
        if calls.may_begin():
            client.call("send_mail", ARGS, on_result=on_result, on_error=on_error)

    def on_result(result: object) -> None:
        calls.ended(result)
        call()

    def on_error(error: Exception) -> None:
        raise SystemExit(str(error))

    for _ in range(IN_FLIGHT):
        call()
    calls.done.wait()
    client.close()


def with_connections(port: int, calls: Calls) -> None:
    def call() -> None:
        if calls.may_begin():
            connection = AsyncTcpConnection(f"text://127.0.0.1:{port}")
            connection.send(TASK)
            connection.on_message = on_message
            connection.connect()

    def on_message(connection: AsyncTcpConnection, data: str) -> None:
        connection.close()
        calls.ended(json.loads(data))
        call()

    for _ in range(IN_FLIGHT):
        call()
    calls.done.wait()


def with_sockets(port: int, calls: Calls) -> None:
    def work() -> None:
        while calls.may_begin():
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(TASK.encode() + b"\n")
                data = b""
                while not data.endswith(b"\n"):
                    data += connection.recv(65536)
            calls.ended(json.loads(data))

    gevent.joinall([gevent.spawn(work) for _ in range(IN_FLIGHT)], raise_error=True)


WAYS = {
    "task-client": with_task_client,
    "connection": with_connections,
    "socket": with_sockets,
}


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    way, port, many = WAYS[sys.argv[1]], int(sys.argv[2]), int(sys.argv[3])
    way(port, Calls(500))  # warm
    begun, before = time.monotonic(), cpu_seconds()
    way(port, Calls(many))
    used, took = cpu_seconds() - before, time.monotonic() - begun
    print(json.dumps({"rate": many / took, "cpu_us": used / many * 1e6}))


main()
