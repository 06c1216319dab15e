"""RQ: all default; its worker forks for each job."""

import os

from redis import Redis
from rq import Queue
from rq.results import Result

connection = Redis(port=int(os.environ["REDIS_PORT"]))
queue = Queue("bench", connection=connection)


def send_mail(from_, to, contents):
    return {"sent": 1, "contents": contents}


def call(**mail):
    return queue.enqueue(send_mail, **mail)


def result(call):
    found = call.latest_result(timeout=60)
    assert found.type == Result.Type.SUCCESSFUL, found
    return found.return_value
