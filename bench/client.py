"""The calling side's own CPU: prints it in microseconds a call, as JSON.

client.py task-client URL CALLS     one TaskClient, 50 calls in flight
client.py connection URL CALLS      an AsyncTcpConnection for each task, 50 at once
client.py socket URL CALLS          a bare gevent socket doing the same
client.py page URL CALLS            20 websockets, a message each and the next when it is answered
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import base64  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import socket  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from urllib.parse import urlsplit  # noqa: E402

import gevent  # noqa: E402
from gevent.event import Event  # noqa: E402

from gtask import AsyncTcpConnection, TaskClient  # noqa: E402

TEXT = "x" * 64
BARE = json.dumps({"function": "echo", "args": {"text": TEXT}})
IN_FLIGHT = 50


def with_task_client(url: str, calls: int) -> None:
    client, done, state = TaskClient([url]), Event(), {"begun": 0, "ended": 0}

    def call() -> None:
        state["begun"] += 1
        client.call("echo", {"text": TEXT}, on_result=ended, on_error=failed)

    def ended(result: str) -> None:
        assert result == TEXT
        state["ended"] += 1
        if state["begun"] < calls:
            call()
        elif state["ended"] == calls:
            done.set()

    for _ in range(IN_FLIGHT):
        call()
    done.wait()
    client.close()


def failed(error: Exception) -> None:
    print(error, file=sys.stderr)
    os._exit(1)


def with_connections(url: str, calls: int) -> None:
    done, state = Event(), {"begun": 0, "ended": 0}

    def call() -> None:
        state["begun"] += 1
        connection = AsyncTcpConnection(url)
        connection.send(BARE)
        connection.on_message = ended
        connection.connect()

    def ended(connection: AsyncTcpConnection, data: str) -> None:
        connection.close()
        assert len(data) == len(TEXT) + 2
        state["ended"] += 1
        if state["begun"] < calls:
            call()
        elif state["ended"] == calls:
            done.set()

    for _ in range(IN_FLIGHT):
        call()
    done.wait()


def with_sockets(url: str, calls: int) -> None:
    host, port = url.partition("://")[2].split(":")
    left = iter(range(calls))

    def work() -> None:
        for _ in left:
            with socket.create_connection((host, int(port))) as client:
                client.sendall(BARE.encode() + b"\n")
                data = b""
                while not data.endswith(b"\n"):
                    data += client.recv(65536)
                assert len(data) == len(TEXT) + 3

    gevent.joinall([gevent.spawn(work) for _ in range(IN_FLIGHT)], raise_error=True)


def with_websockets(url: str, calls: int) -> None:
    address = urlsplit(url.replace("websocket", "http"))
    left = iter(range(calls))
    frame = b"\x81" + bytes([0x80 | len(TEXT)]) + bytes(4) + TEXT.encode()

    def work() -> None:
        client = socket.create_connection((address.hostname, address.port))
        key = base64.b64encode(os.urandom(16)).decode()
        client.sendall(
            f"GET / HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        data = b""
        while b"\r\n\r\n" not in data:
            data += client.recv(4096)
        for _ in left:
            client.sendall(frame)
            data = b""
            while len(data) < len(TEXT) + 4:
                data += client.recv(4096)
        client.close()

    gevent.joinall([gevent.spawn(work) for _ in range(20)], raise_error=True)


def main() -> None:
    what, url, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    run = {
        "task-client": with_task_client,
        "connection": with_connections,
        "socket": with_sockets,
        "page": with_websockets,
    }[what]
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    run(url, calls)
    after, seconds = resource.getrusage(resource.RUSAGE_SELF), time.monotonic() - start
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"tasks": calls, "seconds": seconds, "cpu_us": cpu / calls * 1e6}))


main()
