"""What the master has the process of a store do: become the services' user, and own the file."""

from __future__ import annotations

import os

from ..config import StoreSettings
from ..errors import ConfigError
from ..logs.hooks import install_hooks
from ..logs.loggers import get_logger
from ..logs.setup import look_after_log
from ..process import die_with, set_title
from ..store_board import StoreBoard
from .child import drop_privileges

log = get_logger("gtask.store")

LOG_SECONDS = 1.0  # what the end may wait for the reader of standard error


def run_store(settings: StoreSettings, board: StoreBoard, master: int) -> int:
    """The whole life of the process; returns its exit code.

    Args:
        board: where it tells the master how it goes.
        master: the master's process id; this process ends with it.
    """
    install_hooks()
    die_with(master)
    set_title(f"gtask: store {settings.url}")
    if settings.user or settings.group:
        try:
            drop_privileges(settings.user, settings.group)
        except ConfigError as error:
            log.error("store %s: %s", settings.url, error)
            return os.EX_CONFIG
        die_with(master)  # the kernel has forgotten it with the user
    from ..queue.process import run_process  # gevent and SQLite are for this process alone
    from .hub import watch_hubs

    watch_hubs()

    try:
        return run_process(settings, board, look_after_log)
    except BaseException:  # the last edge: nothing may return into the master's code
        log.exception("store %s: its process has failed", settings.url)
        return 1
    finally:
        look_after_log(LOG_SECONDS)
