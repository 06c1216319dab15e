"""The log as the settings want it: one set-up for master, molds and workers, which inherit it.

Lines are appended whole, so processes may share the file. A log that cannot be written (a full
disk) loses lines and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pwd

from ..config import Settings
from .handler import OwnHandler, make_handler, own_handler, set_own_handler
from .output import LogFile, Output, Stderr


def setup_logging(settings: Settings) -> None:
    """Send the log to `log_file` or stderr; called again, it opens the file anew.

    A script that has set its own logging up keeps that, unless `log_file` is set.

    Raises:
        OSError: `log_file` cannot be opened; the log stays as it was.
    """
    root = logging.getLogger()
    old = [handler for handler in root.handlers if isinstance(handler, OwnHandler)]
    if root.handlers and not old and not settings.log_file:
        return
    handler = make_handler(_output(settings), settings.log_format)
    root.addHandler(handler)
    for previous in old:
        root.removeHandler(previous)
        previous.output.flush()
        previous.output.close()
    set_own_handler(handler)
    root.setLevel(settings.log_level.upper())


def log_descriptor() -> int | None:
    """The log file's, for what a daemon prints; None where the log goes to standard error."""
    own = own_handler()
    return own.output.fileno() if own is not None and own.output.fileno() != 2 else None


def reopen_log() -> None:
    """The log file may have been renamed: make it anew, if it can be made; for the master."""
    own = own_handler()
    if own is not None:
        with contextlib.suppress(OSError):
            own.output.reopen()


def look_after_log(seconds: float = 0.0) -> None:
    """To be called now and then: follow a log file that was renamed, and write what is kept.

    Args:
        seconds: for at most so many, in which the process stands still.
    """
    own = own_handler()
    if own is not None:
        with contextlib.suppress(OSError):
            own.output.follow()
        own.output.flush(seconds)


def _output(settings: Settings) -> Output:
    return LogFile(settings.log_file, _owner(settings)) if settings.log_file else Stderr()


def _owner(settings: Settings) -> int:
    """The user id of all services that have a `user`; -1 if there is none, or more than one."""
    owners = set()
    for user in {service.user for service in settings.services if service.user}:
        with contextlib.suppress(KeyError):
            owners.add(pwd.getpwnam(user).pw_uid)
    return owners.pop() if len(owners) == 1 and os.geteuid() == 0 else -1
