"""gtask: pre-forked gevent workers for slow work, and the callback API that hands it over.

The public names are loaded when they are first asked for (PEP 562), so that `import gtask` starts
nothing, and the master, which uses only the standard library, does not load gevent.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import compiled
from .version import __version__ as __version__

if TYPE_CHECKING:
    from .client.calls import Call as Call
    from .client.calls import as_completed as as_completed
    from .client.calls import wait as wait
    from .client.client import TaskClient as TaskClient
    from .errors import BadArguments as BadArguments
    from .errors import ConfigError as ConfigError
    from .errors import Draining as Draining
    from .errors import GtaskError as GtaskError
    from .errors import InternalError as InternalError
    from .errors import InvalidRequest as InvalidRequest
    from .errors import Overloaded as Overloaded
    from .errors import QueueFull as QueueFull
    from .errors import Reject as Reject
    from .errors import Retry as Retry
    from .errors import StoreUnavailable as StoreUnavailable
    from .errors import TaskCancelled as TaskCancelled
    from .errors import TaskError as TaskError
    from .errors import TaskExpired as TaskExpired
    from .errors import TaskFailed as TaskFailed
    from .errors import TaskInterrupted as TaskInterrupted
    from .errors import TaskTimedOut as TaskTimedOut
    from .errors import TaskTimeout as TaskTimeout
    from .errors import UnknownJob as UnknownJob
    from .errors import UnknownTask as UnknownTask
    from .errors import WorkerLost as WorkerLost
    from .net.async_tcp import AsyncTcpConnection as AsyncTcpConnection
    from .net.connection import TcpConnection as TcpConnection
    from .net.timer import Timer as Timer
    from .queue.job import Job as Job
    from .queue.queue import Queue as Queue
    from .run import run_all as run_all
    from .tasks import current_task as current_task
    from .tasks import task as task
    from .worker import Worker as Worker

compiled.choose(__path__[0])

_NAMES = {
    ".client.calls": ("Call", "as_completed", "wait"),
    ".client.client": ("TaskClient",),
    ".errors": (
        "BadArguments",
        "ConfigError",
        "Draining",
        "GtaskError",
        "InternalError",
        "InvalidRequest",
        "Overloaded",
        "QueueFull",
        "Reject",
        "Retry",
        "StoreUnavailable",
        "TaskCancelled",
        "TaskError",
        "TaskExpired",
        "TaskFailed",
        "TaskInterrupted",
        "TaskTimedOut",
        "TaskTimeout",
        "UnknownJob",
        "UnknownTask",
        "WorkerLost",
    ),
    ".net.async_tcp": ("AsyncTcpConnection",),
    ".net.connection": ("TcpConnection",),
    ".net.timer": ("Timer",),
    ".queue.job": ("Job",),
    ".queue.queue": ("Queue",),
    ".run": ("run_all",),
    ".tasks": ("current_task", "task"),
    ".worker": ("Worker",),
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gtask' has no attribute {name!r}")
    value = getattr(import_module(home, __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
