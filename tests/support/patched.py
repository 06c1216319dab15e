"""Runs code in a process of its own in which everything is patched as it is in a worker."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from .wait import SLOWNESS

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = """
from gtask.patches import patch_all
patch_all()
import os, sys, threading, time
import gevent
from gevent import monkey
from gevent._hub_local import get_hub_if_exists
from gevent.threadpool import ThreadPool

native_sleep = monkey.get_original("time", "sleep")

def in_thread(function, *args):
    '''What it gives in a native thread.'''
    return threads.spawn(function, *args).get()

class Ticks:
    '''Counts how often the hub went on meanwhile.'''
    def __enter__(self):
        self.count = 0
        self.greenlet = gevent.spawn(self.tick)
        gevent.sleep(0)
        self.count = 0
        return self
    def tick(self):
        while True:
            self.count += 1
            gevent.sleep(0.01)
    def __exit__(self, *_):
        self.greenlet.kill()

def start_hub():
    global threads
    gevent.get_hub()
    threads = ThreadPool(8)
"""


def run_patched(code: str, *, hub: bool = True, seconds: float = 30.0) -> str:
    """Run it, on a hub unless told otherwise; returns what it has printed.

    `in_thread`, `Ticks` and `native_sleep` are there for it.
    """
    program = BEGINNING + ("start_hub()\n" if hub else "") + textwrap.dedent(code)
    done = subprocess.run(
        # Python 3.12 warns of each fork in a process that has threads.
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * SLOWNESS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout
