from __future__ import annotations

import math
import os
import signal

from gtask.master.arrivals import ARRIVAL_SECONDS, Arrivals
from gtask.master.messages import Spawned


def test_who_is_our_child_has_arrived_and_who_never_becomes_it_is_lost():
    arrivals = Arrivals()
    assert arrivals.wake_at(5.0) == math.inf
    pid = os.fork()
    if pid == 0:
        signal.pause()
    arrivals.add(3, Spawned("T", 0, pid), 5.0)
    arrivals.add(3, Spawned("T", 1, os.getppid()), 5.0)
    assert arrivals.wake_at(5.0) < 5.1
    (here,), lost = arrivals.take((), 5.0)
    assert (here.generation, here.worker.pid, lost) == (3, pid, [])
    assert arrivals.take((), 5.0 + ARRIVAL_SECONDS) == ([], [])
    here, (lost,) = arrivals.take((), 5.1 + ARRIVAL_SECONDS)
    assert (here, lost.worker.row) == ([], 1)
    assert arrivals.wake_at(50.0) == math.inf
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_one_that_was_reaped_before_it_was_looked_for_has_arrived():
    arrivals = Arrivals()
    arrivals.add(1, Spawned("T", 0, 4_000_000), 5.0)
    here, lost = arrivals.take({4_000_000}, 5.0)
    assert (len(here), lost) == (1, [])
