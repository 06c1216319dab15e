from __future__ import annotations

import signal

import pytest

from gtask.master.exits import describe_exit


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit 0"),
        (3 << 8, "exit 3"),
        (signal.SIGKILL, "killed by SIGKILL, perhaps out of memory"),
        (signal.SIGTERM, "killed by SIGTERM"),
        (signal.SIGSEGV | 0x80, "killed by SIGSEGV, a fault in C code"),  # with a core dump
        (50, "killed by signal 50"),
    ],
)
def test_describe_exit(status: int, words: str):
    assert describe_exit(status) == words
