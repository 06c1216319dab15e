"""gtask from a plain program: TaskClient."""

import os

from gtask import TaskClient

client = TaskClient([f"text://127.0.0.1:{os.environ['GTASK_PORT']}"])


def call(from_, to, contents):
    return client.call("send_mail", {"from": from_, "to": to, "contents": contents})


def result(call):
    return call.get()
