"""The websocket half of the whole page: a message becomes a task, its result goes back."""

from __future__ import annotations

import json
import os

from gtask import AsyncTcpConnection

TASKS = os.environ["BENCH_TASKS"]


def on_message(ws, message):
    task = AsyncTcpConnection(TASKS)
    task.send(json.dumps({"function": "echo", "args": {"text": message}}))

    def on_result(task, result):
        task.close()
        ws.send(result)

    task.on_message = on_result
    task.connect()
