from __future__ import annotations

import json
import os
import select
import signal
import time
from dataclasses import replace

import pytest

from gtask.address import parse_address
from gtask.config import ServiceSettings, Settings
from gtask.generation import Generation
from gtask.master import trial
from gtask.master.trial import try_load

from ...support.wait import SLOWNESS

SETTINGS = Settings(
    services=(ServiceSettings(name="T", listen=parse_address("text://127.0.0.1:0"), count=2),)
)


def send(generation: Generation, **message: object) -> None:
    generation.channel.send(json.dumps(message).encode())


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


@pytest.mark.parametrize("is_deaf", [False, True])
def test_loading_what_hangs_is_ended(monkeypatch: pytest.MonkeyPatch, is_deaf: bool):
    """By ABRT, which writes its stacks; or by KILL, if it does not hear that."""
    for name in ("LATE_SECONDS", "DUMP_SECONDS"):
        monkeypatch.setattr(trial, name, 0.1)

    def load(generation: Generation) -> int:
        if is_deaf:
            signal.signal(signal.SIGABRT, signal.SIG_IGN)
        time.sleep(100)
        return 0

    late = "not ready within boot_timeout (0.1 s), the log has its stacks"
    before = len(os.listdir("/proc/self/fd"))
    assert try_load(replace(SETTINGS, boot_timeout=0.1), load) == ({}, [late])
    assert len(os.listdir("/proc/self/fd")) == before
