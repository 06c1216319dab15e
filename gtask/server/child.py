"""What a process that was forked from the mold does before it is a worker.

It waits until the master is its parent, ties its life to the master's, and takes on the service's
title. User and group are the mold's already, which takes them on before it imports anything.
"""

from __future__ import annotations

import gc
import grp
import os
import pwd
import signal
from typing import TYPE_CHECKING

from .. import native
from ..errors import ConfigError
from ..process import die_with, open_own_proc, set_title

if TYPE_CHECKING:
    from ..config import ServiceSettings
    from ..generation import Generation

POLL_SECONDS = 0.001


class NotPermitted(Exception):
    """A mold cannot become the user of its services, so it imports nothing."""


def become_child_of_master(generation: Generation, between: int) -> None:
    """Wait until `between`, our parent, has ended; then end when the master ends."""
    while os.getppid() == between:
        native.sleep(POLL_SECONDS)
    die_with(generation.master)


def become_worker_of(settings: ServiceSettings, generation: Generation, title: str) -> None:
    """Take on what a service's workers have: its listeners alone, and a title."""
    native.signal(signal.SIGINT, signal.SIG_DFL)  # until the worker listens to it; as TERM is
    set_title(title)
    for name, listeners in generation.listeners.items():
        if name != settings.name:
            for each in (*listeners, *generation.lobbies.get(name, ())):
                each.close()
    gc.enable()


def take_user(user: str, group: str, parent: int) -> None:
    """In a mold: become the user and group of its services, if they have one.

    Args:
        parent: with whom it dies, which the kernel forgets with the user.

    Raises:
        NotPermitted: there is no such user or group, or we may not become it.
    """
    if user or group:
        try:
            drop_privileges(user, group)
        except ConfigError as error:
            raise NotPermitted(str(error)) from error
        die_with(parent)
        open_own_proc()


def drop_privileges(user: str, group: str) -> None:
    """Become `user` and `group`, for good; an empty `group` is the user's own.

    Raises:
        ConfigError: there is no such user or group, or we may not.
    """
    try:
        entry = pwd.getpwnam(user) if user else None
        gid = grp.getgrnam(group).gr_gid if group else entry.pw_gid if entry else os.getgid()
        if os.geteuid() == 0:
            os.setgroups(os.getgrouplist(user, gid) if entry else [gid])
        os.setgid(gid)
        if entry:
            os.setuid(entry.pw_uid)
            os.environ.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)
    except (KeyError, PermissionError) as error:
        raise ConfigError([f"cannot become user {user!r}, group {group!r}: {error}"]) from error
