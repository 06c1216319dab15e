"""The Workerman manual's page on asynchronous tasks as one script, in gtask's words.

    python -m examples.mailer.page

Then open a websocket to ws://127.0.0.1:8080/ and send it anything: the answer is 작업 완료, and the
front end's process has never waited. README.md here walks through it step by step.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from gtask import AsyncTcpConnection, Worker, run_all

# The page says 0.0.0.0; who may be called by everybody should choose so.
TASK_URL = os.environ.get("TASK_URL", "text://127.0.0.1:12345")
WEB_URL = os.environ.get("WEB_URL", "websocket://127.0.0.1:8080")


# -- the task workers: the page's first script ----------------------------------------------------


def send_mail(args: dict[str, str]) -> dict[str, Any]:
    """What the page leaves out: here a mail server that takes its time."""
    time.sleep(0.2)
    return {"sent": True, "to": args["to"]}


FUNCTIONS = {"send_mail": send_mail}


def on_task(connection: Any, task_data: str) -> None:
    task = json.loads(task_data)
    task_result = FUNCTIONS[task["function"]](task["args"])
    connection.send(json.dumps(task_result))


# The page starts 100 processes, as each does one task at a time. Here a task that waits lets others
# run, so a few processes do.
task_worker = Worker(TASK_URL, count=3, name="TaskWorker")
task_worker.on_message = on_task


# -- the websocket front end: the page's second script --------------------------------------------


def on_message(ws_connection: Any, message: str | bytes) -> None:
    # A connection to the task service: this machine, another one, or a cluster's address.
    task_connection = AsyncTcpConnection(TASK_URL)
    task_data = {
        "function": "send_mail",
        "args": {"from": "xxx", "to": "xxx", "contents": "xxx"},
    }
    # Kept until there is a connection.
    task_connection.send(json.dumps(task_data))

    def on_result(task_connection: AsyncTcpConnection, task_result: str) -> None:
        print(task_result, flush=True)
        task_connection.close()
        ws_connection.send("작업 완료")

    task_connection.on_message = on_result
    task_connection.connect()


web = Worker(WEB_URL, name="Web")
web.on_message = on_message


if __name__ == "__main__":
    run_all(task_worker, web)
