"""Huey: Redis, all else default."""

import os

from huey import RedisHuey

huey = RedisHuey("bench", port=int(os.environ["REDIS_PORT"]))


@huey.task()
def send_mail(from_, to, contents):
    return {"sent": 1, "contents": contents}


def call(**mail):
    return send_mail(**mail)


def result(call):
    return call.get(blocking=True, timeout=60, max_delay=0.002)
