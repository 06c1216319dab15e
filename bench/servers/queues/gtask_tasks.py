"""gtask from a plain program: TaskClient."""

import os

from gtask import TaskClient

client = TaskClient([f"text://127.0.0.1:{os.environ['GTASK_PORT']}"])


def call(text):
    return client.call("echo", {"text": text})


def result(call):
    return call.get()
