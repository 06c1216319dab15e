from __future__ import annotations

import logging
import threading

import gevent
import pytest
from gevent import monkey

from gtask.net import log_queue
from gtask.server import thread_logs

from ...support.hub import until

start_thread = monkey.get_original("_thread", "start_new_thread")


@pytest.fixture
def threads(monkeypatch):
    monkeypatch.setattr(logging.Logger, "callHandlers", logging.Logger.callHandlers)
    monkeypatch.setattr(logging, "_lock", logging._lock)
    monkeypatch.setattr(threading, "_active_limbo_lock", threading._active_limbo_lock)
    thread_logs.make_threads_log()
    log_queue.take_all(gevent.get_hub())
    yield
    log_queue._of_process = None


def test_handlers_are_called_in_the_workers_own_thread(threads):
    had: list[tuple[int, str]] = []

    class Collecting(logging.Handler):
        def emit(self, record):
            had.append((threading.get_ident(), record.getMessage()))

    log = logging.getLogger("gtask.tests.threads")
    handler = Collecting()
    log.addHandler(handler)
    given = ["as it was"]

    def work():
        log.warning("%s", given)
        given[0] = "as it is now"

    start_thread(work, ())
    until(lambda: had)
    log.warning("here")
    log.removeHandler(handler)
    assert had == [(threading.get_ident(), "['as it was']"), (threading.get_ident(), "here")]
