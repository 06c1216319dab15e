"""A gevent-websocket application, served by gunicorn, that has its slow work done by gtask workers.

Each message is one job; its progress and its result come back over the same websocket.
"""

import json
import os

import gevent
from gevent.queue import Queue
from geventwebsocket.exceptions import WebSocketError

from gtask import TaskClient

tasks = TaskClient(os.environ.get("TASKS", "text://127.0.0.1:12345").split(","), timeout=30)


def application(environ, start_response):
    """The WSGI application: websockets only."""
    ws = environ.get("wsgi.websocket")
    if ws is None:
        start_response("426 Upgrade Required", [("Content-Type", "text/plain")])
        return [b"a websocket is expected here\n"]
    outbox = Queue()
    sender = gevent.spawn(send_all, ws, outbox)
    try:
        while (text := ws.receive()) is not None:
            hand_over(json.loads(text), outbox)
    except WebSocketError:
        pass  # the browser has gone
    finally:
        sender.kill()
    return []


def hand_over(job, outbox):
    """Start a job and return at once; the callbacks run later, in greenlets of their own."""
    tasks.call(
        "send_letters",
        job,
        on_progress=lambda done, total, note: outbox.put({"done": done, "total": total}),
        on_result=lambda result: outbox.put({"result": result, "message": "작업 완료"}),
        on_error=lambda error: outbox.put({"error": error.message}),
    )


def send_all(ws, outbox):
    """The only greenlet that sends: gevent-websocket mixes up what several send at once."""
    try:
        for message in outbox:
            ws.send(json.dumps(message, ensure_ascii=False))
    except WebSocketError:
        pass  # the browser has gone; results are dropped with the outbox
