"""`subprocess.Popen`: the standard library's where there is no hub, gevent's where there is one.

For asyncio it is the standard library's, too: gevent's would reap the process before asyncio looks.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import gevent.subprocess
from gevent import monkey
from gevent._hub_local import get_hub_if_exists

from .worlds import original, put

STEP_SECONDS = 0.01  # between two looks at a process that another thread waits for

_Native: Any = original("subprocess", "Popen")
_Green: Any = gevent.subprocess.Popen


class _ByThread(type):
    """Makes what fits the thread; either is an instance of `subprocess.Popen`."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is Popen and (get_hub_if_exists() is None or _is_asyncios()):
            return _Native(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        is_native = cls is Popen and isinstance(instance, _Native)
        return is_native or super().__instancecheck__(instance)


def _is_asyncios() -> bool:
    """A loop of asyncio runs here, which waits for its children itself."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


class Popen(_Green, metaclass=_ByThread):  # type: ignore[misc]
    """gevent's; a process that was started in one thread may be waited for in another."""

    _loop: Any
    returncode: int | None
    args: Any

    @property
    def _is_elsewhere(self) -> bool:
        hub = get_hub_if_exists()
        return hub is None or hub.loop is not self._loop

    def poll(self) -> int | None:
        """As of the standard library."""
        if self._is_elsewhere:
            return self.returncode  # stored by the loop that waits
        result: int | None = super().poll()
        return result

    def wait(self, timeout: float | None = None, **options: Any) -> Any:
        """As of the standard library."""
        if not self._is_elsewhere:
            return super().wait(timeout, **options)
        until = None if timeout is None else time.monotonic() + timeout
        while self.returncode is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            time.sleep(STEP_SECONDS)
        return self.returncode


def install() -> None:
    """Make it the one of `subprocess`, with what the standard library's needs."""
    for name, value in vars(monkey)["saved"]["subprocess"].items():
        if value is not None and getattr(subprocess, name, None) is None:
            setattr(subprocess, name, value)
    put(subprocess, Popen=Popen)
    put(gevent.subprocess, Popen=Popen)
