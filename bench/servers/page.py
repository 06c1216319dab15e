"""The websocket half of the whole page: a text becomes a task with three arguments, on a connection
of its own; the worker's reply goes back as it is.
"""

from __future__ import annotations

import json
import os

from gtask import AsyncTcpConnection

TASKS = os.environ["BENCH_TASKS"]


def on_message(ws, message):
    args = {"from": "alice@example.org", "to": "bob@example.org", "contents": message}
    task = AsyncTcpConnection(TASKS)
    task.send(json.dumps({"function": "send_mail", "args": args}))

    def on_result(task, result):
        task.close()
        ws.send(result)

    task.on_message = on_result
    task.connect()
