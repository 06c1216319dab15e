"""Huey: Redis, all else default."""

import os

from huey import RedisHuey

huey = RedisHuey("bench", port=int(os.environ["REDIS_PORT"]))


@huey.task()
def echo(text):
    return text


def call(text):
    return echo(text)


def result(call):
    return call.get(blocking=True, timeout=60, max_delay=0.002)
