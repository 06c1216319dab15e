from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings, Settings
from gtask.generation import Generation
from gtask.master.molds import MOST_BYTES, Mold, Molds

from ...support.wait import wait_until

SETTINGS = Settings(
    services=(ServiceSettings(name="T", listen=parse_address("text://127.0.0.1:0"), count=2),)
)


def send(generation: Generation, **message: object) -> None:
    generation.channel.send(json.dumps(message).encode())


def repeat(generation: Generation) -> int:
    """A mold that sends what it is sent, until its channel is closed."""
    while message := generation.channel.recv(65536):
        send(generation, said=json.loads(message), pid=os.getpid(), master=generation.master)
    return 0


@pytest.fixture
def molds() -> Iterator[Molds]:
    molds = Molds()
    yield molds
    molds.dismiss_all()
    for mold in molds.values():
        if mold.pid:
            os.waitpid(mold.pid, 0)
        mold.close()


def fork(
    molds: Molds,
    start_mold: Callable[[Generation], int] = repeat,
    after_fork_in_child: Callable[[Mold], None] = lambda _: None,
) -> Mold:
    return molds.fork(SETTINGS, {}, start_mold, after_fork_in_child)


def messages(mold: Mold) -> list:
    """At least one."""
    return wait_until(lambda: [json.loads(message) for message in mold.messages()])


def reap(mold: Mold) -> int:
    """Its exit code; as for the master, it has no process any more."""
    _, status = os.waitpid(mold.pid, 0)
    mold.pid = 0
    return os.waitstatus_to_exitcode(status)


def test_a_mold_hears_and_is_heard(molds: Molds):
    mold = fork(molds)
    assert list(mold.messages()) == []
    mold.spawn("T", 1, 5)
    request = {"event": "spawn", "service": "T", "id": 1, "row": 5}
    assert messages(mold) == [{"said": request, "pid": mold.pid, "master": os.getpid()}]
    mold.dismiss()
    assert reap(mold) == -signal.SIGKILL
    mold.spawn("T", 1, 5)  # nobody hears it, and no error
    mold.dismiss()
    assert list(mold.messages()) == []


def test_what_a_mold_is_given(molds: Molds):
    def describe(generation: Generation) -> int:
        rows = generation.scoreboards["T"].capacity
        send(generation, number=generation.number, count=SETTINGS.services[0].count, rows=rows)
        return 7

    mold = fork(molds, describe)
    assert messages(mold) == [{"number": 1, "count": 2, "rows": 256}]
    assert reap(mold) == 7


def test_its_scoreboard_is_shared(molds: Molds):
    def write(generation: Generation) -> int:
        generation.scoreboards["T"].ints[3] = 42
        return 0

    mold = fork(molds, write)
    assert reap(mold) == 0
    assert mold.scoreboards["T"].ints[3] == 42


def test_an_error_in_it_ends_it_alone(molds: Molds, capfd: pytest.CaptureFixture[str]):
    def fail(generation: Generation) -> int:
        logging.getLogger().handlers.clear()  # pytest's: without any, errors go to standard error
        raise ValueError("broken")

    mold = fork(molds, fail)
    assert reap(mold) == 1
    assert "ValueError: broken" in capfd.readouterr().err


def test_signals_are_blocked_until_the_masters_handlers_are_gone(molds: Molds):
    blocked = os.pipe()

    def look(mold: Mold) -> None:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        os.write(blocked[1], b"%d" % (signal.SIGTERM in mask))

    mold = fork(molds, lambda _: int(signal.SIGTERM in signal.pthread_sigmask(0, ())), look)
    assert reap(mold) == 0, "and not when it runs"
    assert os.read(blocked[0], 1) == b"1"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    for fd in blocked:
        os.close(fd)


def test_a_mold_does_not_keep_the_channels_of_others(molds: Molds):
    first = fork(molds)
    fork(molds)
    first.close()
    assert reap(first) == 0, "it has seen the end of its channel"


def test_a_workers_message_tells_who_has_sent_it(molds: Molds):
    def talk(generation: Generation) -> int:
        generation.events.send(b"anything")
        generation.events.send(b"")
        return 0

    mold = fork(molds, talk)
    pid = mold.pid
    assert reap(mold) == 0
    letters = list(mold.letters())
    assert [(each.data, each.pid, each.user) for each in letters] == [
        (b"anything", pid, os.getuid()),
        (b"", pid, os.getuid()),
    ]
    assert list(mold.letters()) == [], "the end is nobody's message"


def test_a_flood_of_messages_is_read_in_parts(molds: Molds):
    mold = Mold(1, SETTINGS, {})
    mold._workers_end.setblocking(False)
    for _ in range(20):
        for _ in range(10):
            with contextlib.suppress(BlockingIOError):
                mold._workers_end.send(b"x" * 100_000)
        assert sum(len(each.data) for each in mold.letters()) < MOST_BYTES + 100_001
    for _ in range(200):
        mold._workers_end.send(b"x")
    assert len(list(mold.letters())) == 200
    mold.close()


def test_requests_wait_until_the_mold_takes_them(molds: Molds):
    """The channel takes some three hundred."""
    begin = os.pipe()

    def count(generation: Generation) -> int:
        os.read(begin[0], 1)
        rows = [json.loads(generation.channel.recv(65536))["row"] for _ in range(1000)]
        send(generation, in_order=rows == list(range(1000)))
        return 0

    mold = fork(molds, count)
    for row in range(1000):
        mold.spawn("T", row, row)
    assert 0 < len(mold.requests) < 1000
    os.write(begin[1], b"x")

    def answer() -> list:
        mold.send_requests()
        return [json.loads(message) for message in mold.messages()]

    assert wait_until(answer) == [{"in_order": True}]
    assert not mold.requests
    assert reap(mold) == 0
    mold.spawn("T", 1, 5)
    assert not mold.requests, "nobody is there for whom to keep it"
    for fd in begin:
        os.close(fd)


def test_generations_are_forgotten_when_they_have_ended_and_nobody_needs_them(molds: Molds):
    first, second = fork(molds), fork(molds)
    assert list(molds) == [1, 2]
    assert molds[2] is second
    molds.dismiss(1)
    pid, _ = os.waitpid(first.pid, 0)
    assert molds.ended(pid) is first
    assert molds.ended(pid) is None
    assert molds.remove_ended({1}) == []
    assert molds.remove_ended({2}) == [first]
    assert list(molds) == [2]
    molds.dismiss(1)  # forgotten, and no error
    assert molds.is_any_alive
    assert fork(molds).number == 3
    first.close()
