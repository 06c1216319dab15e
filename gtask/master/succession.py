"""How one generation follows another: what start and reload do, as change decides it.

Settings are read, addresses opened, a mold is forked; and later its settings, listeners and stores
become those in use, or those before stay so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from time import monotonic

from ..config import Settings, stores_of
from ..logs.loggers import get_logger
from ..logs.setup import reopen_log, setup_logging
from ..version import what_runs
from .change import Change
from .channels import Channels
from .daemon import Reporter, redirect_output
from .molds import Mold, Molds, StartMold
from .resources import Resources
from .roster import Roster
from .sockets import Listener
from .status import Status
from .stores import StartStore, Stores
from .workdir import WorkingDirectory

log = get_logger("gtask.master")


class Succession:
    """Carries out what a change asks for.

    Args:
        settings: of the whole tree, to begin with.
        start_mold: what a mold process does; called in the forked child.
        start_store: what the process of a store does.
        load: reads the settings again at each reload; without it, a reload forks anew and no more.
        reporter: reports how the start went.
        is_daemon: standard output and error go where the log goes.

    Attributes:
        settings: those in use.
        stores: the processes of the stores, which live on from generation to generation.
    """

    def __init__(
        self,
        settings: Settings,
        start_mold: StartMold,
        start_store: StartStore | None,
        load: Callable[[], Settings] | None,
        molds: Molds,
        roster: Roster,
        change: Change,
        channels: Channels,
        reporter: Reporter,
        *,
        is_daemon: bool,
    ) -> None:
        self.settings = settings
        self.stores = Stores(start_store, self._after_fork_in_store)
        self._start_mold = start_mold
        self._load = load
        self._molds = molds
        self._roster = roster
        self._change = change
        self._channels = channels
        self._reporter = reporter
        self._is_daemon = is_daemon

    def start(self, resources: Resources, watch: Callable[[int, int], None]) -> None:
        """Open everything and fork the first mold; what goes wrong is an exception."""
        self._resources = resources
        self._directory = WorkingDirectory(os.environ)
        self._use(self.settings)
        listeners = resources.open(self.settings, watch)
        self.stores.provide(stores_of(self.settings), monotonic())
        self._fork_mold(self.settings, listeners)

    def begin(self, now: float) -> None:
        """Reload: read the settings again, where they are now, and fork the mold of a new generation.

        Raises:
            ConfigError, CannotListen, OSError: so it has not begun.
        """
        present = self._molds[self._change.present]
        self._resources.notifier.reloading()
        reopen_log()
        self._molds.follow_log()
        self._directory.follow()
        settings = self._load() if self._load is not None else self.settings
        setup_logging(settings)
        if self._is_daemon:
            redirect_output()
        listeners = self._resources.listeners.provide(settings.services, present.listeners)
        self.stores.provide(stores_of(settings), now)
        self._fork_mold(settings, listeners)

    def take_over(self, mold: Mold) -> None:
        """Its workers are to replace those of the present one."""
        self._use(mold.settings)
        self._roster.loaded(mold.number, mold.plans())

    def go_back(self, mold: Mold) -> None:
        """A newer one has failed, or gives way."""
        self._use(mold.settings)
        self._keep_only(mold)

    def complain(self, problems: tuple[str, ...]) -> None:
        """Report that a reload has failed."""
        self._resources.notifier.ready(f"Reload failed: {problems[0]}")
        log.error("reload failed, the previous code goes on: %s", "; ".join(problems))

    def complete(self, mold: Mold, status: Status) -> None:
        """All its workers are ready: report it, and give up what it does not need."""
        self._keep_only(mold)
        self._resources.notifier.ready(status.summary())
        for service in mold.settings.services:
            count = self._roster.plans[service.name].count
            workers = "1 worker" if count == 1 else f"{count} workers"
            log.info("%s ready: %s, %s", service.name, mold.place(service), workers)
        log.info("gtask %s: generation %d serves", what_runs(), mold.number)
        self._reporter.report(0, "")

    def report_failure(self, code: int, reason: str) -> None:
        """Report, on the terminal and in the log, why it does not run; where they are one, once."""
        is_json = self.settings.log_format == "json"
        if self.settings.log_file or is_json:
            log.error("%s", reason.replace("\n", "; "))
        is_told = is_json and not self.settings.log_file and not self._is_daemon
        self._reporter.report(code, "" if is_told else reason)

    def _use(self, settings: Settings) -> None:
        self.settings = settings
        self._roster.endings.stop_timeout = settings.stop_timeout
        self._roster.endings.boot_timeout = settings.boot_timeout

    def _keep_only(self, mold: Mold) -> None:
        self.stores.keep(stores_of(mold.settings), monotonic())
        self._resources.listeners.keep(mold.listeners)

    def _fork_mold(self, settings: Settings, listeners: Mapping[str, Listener]) -> None:
        mold = self._molds.fork(settings, listeners, self._start_mold, self._after_fork_in_child)
        self._channels.add(mold)
        self._change.begun(mold.number, monotonic(), settings.boot_timeout)

    def _after_fork_in_child(self, mold: Mold) -> None:
        """In a mold just forked: close all that is the master's alone."""
        self._resources.close_in_child(mold.listeners)
        self._reporter.close()

    def _after_fork_in_store(self) -> None:
        """In the process of a store, just forked: close all that is the master's alone."""
        for mold in self._molds.values():
            mold.close()
        self._resources.close_in_child({})
        self._reporter.close()
