"""RQ: all default; its worker forks for each job."""

import os

from redis import Redis
from rq import Queue
from rq.results import Result

connection = Redis(port=int(os.environ["REDIS_PORT"]))
queue = Queue("bench", connection=connection)


def echo(text):
    return text


def call(text):
    return queue.enqueue(echo, text)


def result(call):
    found = call.latest_result(timeout=60)
    assert found.type == Result.Type.SUCCESSFUL, found
    return found.return_value
