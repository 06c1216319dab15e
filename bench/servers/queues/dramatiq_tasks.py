"""Dramatiq: Redis broker, results in Redis."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

URL = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0"
broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def send_mail(from_, to, contents):
    return {"sent": 1, "contents": contents}


def call(**mail):
    return send_mail.send(**mail)


def result(call):
    return call.get_result(block=True, timeout=60_000)
