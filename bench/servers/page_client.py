"""The websocket half of the whole page as page.py, with TaskClient: its calls share connections."""

from __future__ import annotations

import json
import os

from gtask import TaskClient

client = TaskClient([os.environ["BENCH_TASKS"]])
encode = json.JSONEncoder(separators=(",", ":")).encode


def on_message(ws, message):
    args = {"from": "alice@example.org", "to": "bob@example.org", "contents": message}
    client.call("send_mail", args, on_result=lambda result: ws.send(encode(result)), on_error=print)
