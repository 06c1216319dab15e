"""Handlers of the user's, in their own greenlet."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import gevent
import pytest
from gevent.event import Event
from greenlet import GreenletExit, getcurrent

from gtask.logs import delivery
from gtask.logs.handler import OwnHandler
from gtask.logs.loggers import get_logger
from gtask.net import log_queue
from gtask.net.reactor import current_reactor

from ...support.hub import until

log = get_logger("gtask.tests.queue")
standard = logging.getLogger("gtask.tests.queue")


class Slow(logging.Handler):
    """Has each record when its gate is open; then does what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Event()
        self.records: list[logging.LogRecord] = []
        self.greenlets: set[object] = set()
        self.then: Callable[[], object] = lambda: None

    def emit(self, record: logging.LogRecord) -> None:
        self.gate.wait()
        self.records.append(record)
        self.greenlets.add(getcurrent())
        self.then()

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def slow() -> Iterator[Slow]:
    handler = Slow()
    standard.addHandler(handler)
    standard.propagate = False
    yield handler
    handler.gate.set()
    log_queue.flush_queue(5)
    standard.removeHandler(handler)
    standard.propagate = True
    delivery._complaints.clear()


@pytest.fixture
def told(monkeypatch, capfd) -> Callable[[], str]:
    """What is told on standard error about the log itself."""
    monkeypatch.setattr(delivery, "_last_resort", OwnHandler.on_stderr())
    return lambda: capfd.readouterr().err


@pytest.fixture
def worker() -> Iterator[None]:
    log_queue.take_all(gevent.get_hub())
    yield
    log_queue._of_process = None


def in_hub(work: Callable[[], object]) -> None:
    current_reactor()  # whoever uses gtask in a hub has one
    done = Event()

    def run() -> None:
        work()
        done.set()

    gevent.get_hub().loop.run_callback(run)
    assert done.wait(5)


def test_the_hub_does_not_wait_for_a_handler(slow: Slow):
    in_hub(lambda: [log.warning("%d", number) for number in range(3)])
    log.warning("3")  # behind these, so not before them
    assert slow.records == []
    slow.gate.set()
    until(lambda: len(slow.records) == 4)
    assert slow.messages == ["0", "1", "2", "3"]
    assert len(slow.greenlets) == 1
    assert gevent.get_hub() not in slow.greenlets


def test_a_greenlet_of_a_program_calls_handlers_itself(slow: Slow):
    slow.gate.set()
    log.warning("told")
    assert slow.greenlets == {getcurrent()}


def test_a_greenlet_of_gtasks_does_not(slow: Slow):
    done = Event()

    def work() -> None:
        log.warning("told")
        done.set()

    current_reactor().start(work)
    assert done.wait(5)
    slow.gate.set()
    until(lambda: slow.records)


def test_a_task_of_a_worker_does_not(slow: Slow, worker):
    log.warning("told")
    assert slow.records == []
    slow.gate.set()
    until(lambda: slow.records)
    assert getcurrent() not in slow.greenlets


def test_a_native_thread_wakes_the_greenlet(slow: Slow, worker):
    slow.gate.set()
    thread = threading.Thread(target=log.warning, args=("from a thread",))
    thread.start()
    thread.join()
    until(lambda: slow.records)
    assert slow.records[0].threadName != "MainThread"


@pytest.mark.parametrize("error", [ValueError, SystemExit, GreenletExit, KeyboardInterrupt])
def test_what_a_handler_raises_does_not_end_it(slow: Slow, worker, error):
    def fail() -> None:
        raise error

    slow.then = fail
    slow.gate.set()
    for number in range(3):
        log.warning("%d", number)
    until(lambda: len(slow.records) == 3)


def test_a_greenlet_that_was_killed_is_made_anew(slow: Slow, worker):
    log.warning("one")
    gevent.sleep(0)
    kill = log_queue._of_process._greenlet.throw
    gevent.get_hub().loop.run_callback(kill, GreenletExit)
    gevent.sleep(0)
    slow.gate.set()
    log.warning("two")
    until(lambda: "two" in slow.messages)


def test_what_waits_is_bounded_and_the_oldest_go(slow: Slow, worker, monkeypatch, told):
    monkeypatch.setattr(log_queue, "MOST_RECORDS", 5)
    for number in range(10):
        log.warning("%d", number)
        gevent.sleep(0)
    slow.gate.set()
    until(lambda: "9" in slow.messages)
    assert slow.messages == ["0", "5", "6", "7", "8", "9"], "the handler had the first already"
    until(lambda: not log_queue._of_process.is_busy)
    text = told()
    assert text.count("a handler of the log takes too long") == 1
    assert "4 records for handlers of the log were dropped" in text


def test_few_exceptions_are_kept_with_their_frames(slow: Slow, worker, monkeypatch):
    monkeypatch.setattr(log_queue, "MOST_EXCEPTIONS", 2)
    for number in range(4):
        try:
            raise ValueError(number)
        except ValueError:
            log.exception("failed")
    slow.gate.set()
    until(lambda: len(slow.records) == 4)
    assert [bool(record.exc_info) for record in slow.records] == [True, True, False, False]
    assert "ValueError: 3" in slow.records[3].exc_text


def test_the_end_waits_for_handlers_but_not_for_long(slow: Slow, worker, told):
    log.warning("one")
    gevent.spawn_later(0.05, slow.gate.set)
    log_queue.flush_queue(5)
    assert slow.messages == ["one"]
    slow.gate.clear()
    log.warning("two")
    log.warning("three")
    log_queue.flush_queue(0.05)
    assert "1 records were not taken by the log's handlers in time" in told()


def test_what_waits_in_a_parent_is_not_the_childs(slow: Slow, worker):
    queue = log_queue._of_process
    log.warning("the parent's")
    queue.pid -= 1  # as it is in a child
    slow.gate.set()
    log.warning("the child's")
    assert slow.messages == ["the child's"], "and at once, as it may have no loop that runs"
