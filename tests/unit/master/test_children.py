from __future__ import annotations

import os
import signal
import subprocess

from gtask.master.children import is_child, reap, send_signal


def test_a_child_is_one_until_it_is_reaped():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    assert is_child(pid)
    assert reap() == []
    assert send_signal(pid, signal.SIGTERM)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert is_child(pid), "its number is nobody else's yet"
    assert reap() == [(pid, signal.SIGTERM)]
    assert not is_child(pid)
    assert not send_signal(pid, signal.SIGTERM)
    assert reap() == []


def test_a_stranger_is_sent_nothing():
    """Also one that we might kill: a child of a child."""
    with subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as shell:
        pid = int(shell.stdout.readline())
        assert not send_signal(pid, signal.SIGKILL)
        os.kill(pid, 0)
        os.kill(pid, signal.SIGKILL)
