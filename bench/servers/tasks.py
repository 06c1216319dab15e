"""The tasks that the benchmarks call."""

from __future__ import annotations

import os
import time

from gtask import task


@task
def echo(text):
    return text


@task
def nap(seconds):
    time.sleep(seconds)
    return os.getpid()


@task
def pid():
    return os.getpid()
