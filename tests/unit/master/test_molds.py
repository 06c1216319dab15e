from __future__ import annotations

import json
import logging
import os
import select
import signal
from collections.abc import Callable, Iterator

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings, Settings
from gtask.generation import Generation
from gtask.master.molds import Mold, Molds, try_load

from ...support.wait import SLOWNESS, wait_until

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
        mold.channel.close()


def fork(
    molds: Molds,
    start_mold: Callable[[Generation], int] = repeat,
    after_fork_in_child: Callable[[Mold], None] = lambda _: None,
) -> Mold:
    return molds.fork(SETTINGS, {}, start_mold, after_fork_in_child)


def messages(mold: Mold) -> list:
    """At least one."""
    return wait_until(lambda: list(mold.messages()))


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
    first.channel.close()
    assert reap(first) == 0, "it has seen the end of its channel"


def test_nonsense_is_no_message(molds: Molds):
    def talk(generation: Generation) -> int:
        generation.channel.send(b"{]")
        send(generation, event="loaded")
        return 0

    mold = fork(molds, talk)
    assert reap(mold) == 0
    assert list(mold.messages()) == [{"event": "loaded"}]


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
    first.channel.close()


def test_loading_in_a_process_made_for_it():
    def load(generation: Generation) -> int:
        send(generation, event="loaded", functions={"T": ["add"]})
        return select.select([generation.channel], [], [], 5 * SLOWNESS) == ()  # it is killed

    assert try_load(SETTINGS, load) == ({"T": ["add"]}, [])


def test_loading_what_is_broken():
    def load(generation: Generation) -> int:
        send(generation, event="failed", problems=["no module x"], code=78)
        return 1

    assert try_load(SETTINGS, load) == ({}, ["no module x"])
    ended = "the process that loads the code has ended: exit 3"
    assert try_load(SETTINGS, lambda _: 3) == ({}, [ended])
