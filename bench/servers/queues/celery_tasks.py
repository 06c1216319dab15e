"""Celery: its Redis transport and result backend, all else default."""

import os

from celery import Celery

URL = f"redis://127.0.0.1:{os.environ['REDIS_PORT']}/0"
app = Celery("bench", broker=URL, backend=URL)


@app.task
def send_mail(from_, to, contents):
    return {"sent": 1, "contents": contents}


def call(**mail):
    return send_mail.delay(**mail)


def result(call):
    return call.get(timeout=60)
