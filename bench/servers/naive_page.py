"""The page with gevent-websocket's own server and a socket for each task, beside naive.py.

Usage: naive_page.py PORT TASK_PORT
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402
import socket  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from geventwebsocket.handler import WebSocketHandler  # noqa: E402
from geventwebsocket.server import WebSocketServer  # noqa: E402

PORT, TASK_PORT = map(int, sys.argv[1:3])


def application(environ, start_response):
    ws = environ["wsgi.websocket"]
    while (message := ws.receive()) is not None:
        with socket.create_connection(("127.0.0.1", TASK_PORT)) as task:
            args = {"from": "alice@example.org", "to": "bob@example.org", "contents": message}
            line = json.dumps({"function": "send_mail", "args": args})
            task.sendall(line.encode() + b"\n")
            with task.makefile() as replies:
                ws.send(replies.readline().rstrip("\n"))
    return []


tasks = subprocess.Popen(
    [sys.executable, str(Path(__file__).with_name("naive.py")), str(TASK_PORT)]
)
try:
    WebSocketServer(
        ("127.0.0.1", PORT), application, handler_class=WebSocketHandler, log=None
    ).serve_forever()
finally:
    tasks.kill()
