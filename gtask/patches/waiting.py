"""`os.waitpid` and its kin: in a greenlet they let the others go on, as does `Process.join`, which is one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import gevent
from gevent.monkey.api import patch_item
from gevent.socket import wait_read

from .children import FIRST_POLL_SECONDS, POLL_SECONDS, open_pidfd, reaped, take_status
from .worlds import may_wait, original

NATIVE: dict[str, Any] = {
    name: original("os", name) for name in ("wait", "waitpid", "wait3", "wait4", "waitid", "system")
}
_ANY_NEWS = os.WUNTRACED | os.WCONTINUED  # beyond the end, which is all that a pidfd tells


def _wait_for(look: Callable[[], Any], pid: int, options: int) -> Any:
    """What `look`, which does not wait, gives when there is something.

    Args:
        pid: of the one process that it looks for; 0: any of several.
        options: of waitpid(2).
    """
    found = look()
    pause = FIRST_POLL_SECONDS
    pidfd = open_pidfd(pid) if found is None and pid > 0 and not options & _ANY_NEWS else None
    try:
        while found is None:
            if pidfd is not None:
                wait_read(pidfd)
            else:
                gevent.sleep(pause)
                pause = min(pause * 2, POLL_SECONDS)
            found = look()
        return found
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _wait4(name: str, pid: int, options: int, *args: Any) -> Any:
    """One of the functions that give a tuple of a process id, 0 for none, and a status."""
    function = NATIVE[name]
    if options & os.WNOHANG or not may_wait():
        result = function(*args, options)
    else:

        def look() -> Any:
            result = function(*args, options | os.WNOHANG)
            return result if result[0] else None

        result = _wait_for(look, pid, options)
    reaped(result[0], result[1])
    return result


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """`os.waitpid`; also of what `subprocess` has reaped in the meantime."""
    try:
        result: tuple[int, int] = _wait4("waitpid", pid, options, pid)
    except ChildProcessError:
        status = take_status(pid)
        if status is None:
            raise
        return pid, status
    return result


def wait() -> tuple[int, int]:
    """`os.wait`."""
    return waitpid(-1, 0)


def wait3(options: int) -> tuple[int, int, Any]:
    """`os.wait3`."""
    result: tuple[int, int, Any] = _wait4("wait3", 0, options)
    return result


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    """`os.wait4`."""
    result: tuple[int, int, Any] = _wait4("wait4", pid, options, pid)
    return result


def waitid(idtype: int, id: int, options: int, /) -> Any:
    """`os.waitid`."""
    function = NATIVE["waitid"]
    if options & os.WNOHANG or not may_wait():
        result = function(idtype, id, options)
    else:
        pid = id if idtype == os.P_PID else 0
        # WSTOPPED and WUNTRACED are one bit.
        result = _wait_for(lambda: function(idtype, id, options | os.WNOHANG), pid, options)
    if result is not None and not options & os.WNOWAIT:
        _tell_of(result)
    return result


def _tell_of(result: Any) -> None:
    if result.si_code == os.CLD_EXITED:
        reaped(result.si_pid, result.si_status << 8)
    elif result.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        reaped(result.si_pid, result.si_status)


def system(command: str | bytes) -> int:
    """`os.system`, without a hold on SIGINT and SIGQUIT meanwhile."""
    if not may_wait():
        status: int = NATIVE["system"](command)
        return status
    code = subprocess.Popen(command, shell=True, close_fds=False).wait()
    return -code if code < 0 else code << 8


def install() -> None:
    """Make them those of `os`; forks are the system's own, and waited for as any other child."""
    for function in (wait, waitpid, wait3, wait4, waitid, system):
        patch_item(os, function.__name__, function)
    for name in ("fork", "forkpty"):
        setattr(os, name, original("os", name))
