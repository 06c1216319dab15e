"""The supervisor: carries out what the roster decides, and tells it what happens.

One thread, one poll(2), no event loop: signals arrive through a pipe, children by waitpid(2), the
workers' messages on a socket pair for each generation, operators on the control socket. It imports
neither gevent nor any user code, so that nothing a task does can end it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from .. import native
from .. import scoreboard as board
from ..config import Settings
from ..errors import ConfigError
from ..logs import setup_logging
from ..process import adopt_orphans, set_title
from ..scoreboard import State
from .actions import Abandon, Action, Dismiss, Halt, Say, Signal, Spawn
from .control import Client, Control
from .daemon import Reporter, redirect_output
from .exits import describe_exit
from .listeners import Listeners
from .molds import Mold, StartMold
from .pidfile import AlreadyRunning, PidFile
from .roster import Roster
from .slots import Phase, Plan
from .sockets import CannotListen
from .status import Status
from .survey import Survey
from .systemd import Notifier

log = logging.getLogger("gtask.master")

FAILED = 1

CHORES_SECONDS = 0.25
SAMPLE_SECONDS = 1.0
WATCH_SECONDS = 0.01  # between looks, while workers close their listening sockets
SWEEP_SECONDS = 0.5  # that they may take for it
STATUS_SECONDS = 5.0  # between two status lines for systemd
HEALTHY_SECONDS = 5.0  # a worker may be silent for so long, or for half the watchdog's time
MOLD_BACKOFF_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)

RELOAD_SIGNALS = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
SCALE_SIGNALS = {signal.SIGTTIN: 1, signal.SIGTTOU: -1}
STOP_SIGNALS = (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT)
HANDLED = (*RELOAD_SIGNALS, *SCALE_SIGNALS, *STOP_SIGNALS, signal.SIGCHLD)
STAGES = ("", "draining", "stopping now", "killing")


class CannotStart(Exception):
    """The program ends with `code` and a line for the operator."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass
class _Change:
    """A start or a reload under way.

    Attributes:
        mold: of the new generation.
        clients: who waits for the outcome.
        settled: when its workers had taken over; infinite before.
    """

    mold: Mold
    clients: list[Client]
    settled: float = math.inf


class Master:
    """Runs the services that `settings` describe until it is told to stop.

    Args:
        settings: of the whole tree.
        start_mold: what a mold process does; called in the forked child.
        load: reads the settings again at each reload; without it, a reload forks anew and no more.
        reporter: told how the start went.
        is_daemon: standard output and error go where the log goes.
    """

    def __init__(
        self,
        settings: Settings,
        start_mold: StartMold,
        *,
        load: Callable[[], Settings] | None = None,
        reporter: Reporter | None = None,
        is_daemon: bool = False,
    ) -> None:
        self.settings = settings
        self._start_mold = start_mold
        self._load = load
        self._reporter = reporter or Reporter()
        self._is_daemon = is_daemon
        self._started = time.time()
        self._poll = native.poll()
        self._roster = Roster(settings.stop_timeout)
        self._molds: dict[int, Mold] = {}
        self._mold: Mold | None = None  # the one that new workers come from
        self._generations = 0
        self._status = Status(self._roster, self._molds)
        self._change: _Change | None = None
        self._reload_wanted: list[Client] | None = None  # as soon as the present change is done
        self._mold_failures = 0
        self._surveys: list[Survey] = []
        self._stop_stage = 0
        self._stop_clients: list[Client] = []
        self._exit_code = 0
        self._is_over = False
        # When something is due.
        self._refuse_at = self._mold_at = math.inf
        self._chores_at = self._sample_at = self._status_at = self._watchdog_at = 0.0

    def run(self) -> int:
        """Start, serve, stop; returns the exit code."""
        try:
            self._open()
        except CannotStart as error:
            self._tell_failure(error.code, str(error))
            self._is_over = True
        try:
            while not self._is_over:
                self._turn()
        finally:
            self._close()
        return self._exit_code

    # -- opening and closing ------------------------------------------------------------------

    def _open(self) -> None:
        self._pid_file = PidFile(self.settings.pid_file)
        self._control: Control | None = None
        self._signals_in, self._signals_out = os.pipe()
        self._notifier = Notifier(os.environ)
        self._listeners = Listeners(os.environ)
        try:
            setup_logging(self.settings)
        except OSError as error:
            problem = f"{self.settings.file} [gtask] log_file: {error.filename}: {error.strerror}"
            raise CannotStart(os.EX_CONFIG, problem) from error
        self._take_signals()
        self._has_terminal = _has_terminal()
        adopt_orphans()
        set_title(f"gtask: master {self.settings.file}".rstrip())
        try:
            if self.settings.pid_file:
                self._pid_file.take()
            listeners = self._listeners.provide(self.settings.services, {})
            self._control = self._open_control()
            self._begin(self.settings, listeners, [])
        except AlreadyRunning as error:
            raise CannotStart(FAILED, str(error)) from error
        except CannotListen as error:
            raise CannotStart(os.EX_UNAVAILABLE, str(error)) from error
        except OSError as error:
            what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
            raise CannotStart(FAILED, f"cannot start: {what}") from error
        for name, _ in self._listeners.passed:
            log.warning("systemd passes a socket, %r, that no service listens on", name)

    def _take_signals(self) -> None:
        os.set_blocking(self._signals_in, False)
        os.set_blocking(self._signals_out, False)
        for number in HANDLED:
            native.signal(number, lambda *_: None)  # the number comes through the pipe
        signal.set_wakeup_fd(self._signals_out, warn_on_full_buffer=False)
        self._poll.register(self._signals_in, select.POLLIN)

    def _open_control(self) -> Control | None:
        path = self.settings.control
        if not path:
            return None
        try:
            return Control(path, self._watch)
        except OSError as error:
            where = f"cannot listen on control socket {path}"
            raise CannotStart(os.EX_UNAVAILABLE, f"{where}: {error.strerror or error}") from error

    def _watch(self, fd: int, events: int) -> None:
        if events:
            self._poll.register(fd, events)
        else:
            self._poll.unregister(fd)

    def _close(self) -> None:
        self._listeners.keep({})
        if self._control is not None:
            self._control.close()
            self._control.remove()
        self._pid_file.release()
        self._forget_signals()

    def _forget_signals(self) -> None:
        signal.set_wakeup_fd(-1)
        for number in HANDLED:
            native.signal(number, signal.SIG_DFL)
        os.close(self._signals_in)
        os.close(self._signals_out)

    def _leave(self) -> None:
        """In a mold just forked: close all that is the master's alone."""
        self._forget_signals()
        newest = self._molds[self._generations]
        for mold in self._molds.values():
            if mold is not newest:
                mold.channel.close()
        self._listeners.close_in_child(newest.listeners)
        if self._control is not None:
            self._control.close()
        self._pid_file.close()
        self._notifier.close()
        self._reporter.close()

    # -- the loop -----------------------------------------------------------------------------

    def _turn(self) -> None:
        """Wait until something happens or is due, then do all that follows from it."""
        for fd, events in self._poll.poll(self._wait_seconds() * 1000):
            if fd == self._signals_in:
                self._read_signals()
            elif self._control is not None and self._control.owns(fd):
                if asked := self._control.serve(fd, events):
                    self._answer(*asked)
            elif not events & select.POLLIN:
                self._poll.unregister(fd)  # nobody is left of that generation
        # Whatever a worker said, it said before it died. So what is read after the reaping is all
        # that the dead have said.
        dead = self._reap()
        now = monotonic()
        for mold in list(self._molds.values()):
            for message in mold.messages():
                self._hear(mold, message, now)
        for pid, status in dead:
            self._bury(pid, status, now)
        self._do_chores(now)
        for action in self._roster.decide(now):
            self._perform(action, now)
        self._finish_change(now)
        self._surveys = [survey for survey in self._surveys if not survey.finish(now)]
        self._finish_stop(now)

    def _wait_seconds(self) -> float:
        now = monotonic()
        due = min(self._chores_at, self._mold_at, self._roster.wake_at(now))
        if self._refuse_at < math.inf or (self._change and self._change.settled < math.inf):
            due = min(due, now + WATCH_SECONDS)
        return max(0.0, due - now)

    def _reap(self) -> list[tuple[int, int]]:
        dead: list[tuple[int, int]] = []
        while True:
            try:
                pid, status = native.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return dead
            if pid == 0:
                return dead
            dead.append((pid, status))

    def _perform(self, action: Action, now: float) -> None:
        match action:
            case Spawn(generation, service, worker_id, row):
                self._molds[generation].spawn(service, worker_id, row)
            case Signal(pid, number):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:  # a script's own waitpid has reaped our child
                    self._bury(pid, 0, now)
            case Say(text, is_trouble):
                log.log(logging.WARNING if is_trouble else logging.INFO, "%s", text)
            case Dismiss(generation):
                self._molds[generation].dismiss()
            case Abandon(generation, reason):
                self._mold = self._molds[self._roster.generation]
                self._fail_change(self._molds[generation], [reason], now)
            case Halt(reason):
                self._give_up(FAILED, reason)

    def _do_chores(self, now: float) -> None:
        """What is to be done every now and then."""
        if now >= self._mold_at:
            self._mold_at = math.inf
            self._want_reload([])
        if now < self._chores_at:
            return
        self._chores_at = now + CHORES_SECONDS
        for process in self._roster.processes:
            if process.pid:
                self._roster.beat(process.pid, self._status.last_sign(process))
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_SECONDS
            self._status.sample(now)
        if now >= self._watchdog_at and self._is_healthy(now):
            self._watchdog_at = now + self._notifier.watchdog_seconds / 2
            self._notifier.watchdog()
        if now >= self._status_at and self._change is None and not self._stop_stage:
            self._status_at = now + STATUS_SECONDS
            self._notifier.status(self._status.summary())

    def _is_healthy(self, now: float) -> bool:
        """Each service has a worker whose loop turns; nothing is demanded of a start or stop."""
        if self._stop_stage or not self._reporter.is_told:
            return True
        limit = max(self._notifier.watchdog_seconds / 2, HEALTHY_SECONDS)
        turning = {
            process.service
            for process in self._roster.processes
            if process.phase == Phase.READY and now - process.last_sign < limit
        }
        return turning >= self._roster.plans.keys()

    # -- what comes in ------------------------------------------------------------------------

    def _read_signals(self) -> None:
        for number in os.read(self._signals_in, 4096):
            if number in SCALE_SIGNALS:
                self._roster.scale(SCALE_SIGNALS[signal.Signals(number)])
                counts = {name: plan.count for name, plan in self._roster.plans.items()}
                log.info("%s: processes wanted: %s", signal.Signals(number).name, counts)
            elif number == signal.SIGHUP and self._has_terminal and not _has_terminal():
                self._stop(signal.SIGHUP)  # the terminal that we run in has been closed
            elif number in RELOAD_SIGNALS:
                self._want_reload([])
            elif number in STOP_SIGNALS:
                self._stop(number)

    def _hear(self, mold: Mold, message: dict[str, Any], now: float) -> None:
        """A message of the mold (those with a service) or of a worker (those with its pid)."""
        roster, pid = self._roster, message.get("pid", 0)
        match message["event"]:
            case "loaded":
                self._code_loaded(mold, message["functions"])
            case "failed" if "problems" in message:
                self._fail_change(mold, message["problems"], now, message["code"])
            case "failed" if pid:
                roster.failed(pid, message["reason"])
            case "failed":
                where = mold.number, message["service"], message["row"]
                roster.not_spawned(*where, message["reason"], now)
            case "spawned":
                roster.spawned(mold.number, message["service"], message["row"], pid)
            case "ready":
                roster.ready(pid, now)
            case "recycle":
                roster.recycle(pid, message["reason"])
            case "connections":
                for survey in self._surveys:
                    survey.add(pid, message["connections"], message["last"])

    def _bury(self, pid: int, status: int, now: float) -> None:
        process = self._roster.find(pid)
        if process is not None:
            self._status.ended(process)
            self._roster.exited(pid, status, now)
        for mold in list(self._molds.values()):
            if mold.pid == pid:
                mold.pid = 0
                self._mold_ended(mold, status, now)
            if not mold.pid and mold is not self._mold and not self._has_workers(mold):
                with contextlib.suppress(KeyError):  # when it has hung up already
                    self._poll.unregister(mold.channel)
                mold.channel.close()
                del self._molds[mold.number]

    def _has_workers(self, mold: Mold) -> bool:
        return any(process.generation == mold.number for process in self._roster.processes)

    def _answer(self, client: Client, request: dict[str, Any]) -> None:
        """An operator asks for something."""
        match request.get("command"):
            case "status":
                client.reply(ok=True, **self._describe())
            case "connections":
                ready = [each for each in self._roster.processes if each.phase == Phase.READY]
                self._surveys.append(Survey(client, ready, monotonic()))
            case "reload":
                self._want_reload([client])
            case "stop":
                self._stop_clients.append(client)
                self._stop(signal.SIGTERM)
            case command:
                client.reply(ok=False, message=f"unknown command {command!r}")

    def _describe(self) -> dict[str, Any]:
        now = monotonic()
        changing = "reloading" if self._reporter.is_told else "starting"
        state = "stopping" if self._stop_stage else changing if self._change else "running"
        services = []
        listeners = self._mold.listeners if self._mold is not None else {}
        for name, plan in self._roster.plans.items():
            listen = str(listeners[name].bound)
            services.append(
                {"name": name, "listen": listen, "count": plan.count}
                | self._status.service(name, now)
            )
        return {
            "pid": os.getpid(),
            "state": state,
            "is_daemon": self._is_daemon,
            "started": round(self._started, 3),
            "uptime_seconds": round(time.time() - self._started, 1),
            "generation": self._roster.generation,
            "file": self.settings.file,
            "stop_timeout": self.settings.stop_timeout,
            "services": services,
        }

    # -- start and reload ---------------------------------------------------------------------

    def _want_reload(self, clients: list[Client]) -> None:
        """Reload now, or when what is under way is done."""
        if self._stop_stage:
            for client in clients:
                client.reply(ok=False, message="the service is stopping")
        elif self._change is not None:
            self._reload_wanted = (self._reload_wanted or []) + clients
        else:
            self._reload(clients)

    def _reload(self, clients: list[Client]) -> None:
        assert self._mold is not None
        self._notifier.reloading()
        try:
            settings = self._load() if self._load is not None else self.settings
            setup_logging(settings)
            if self._is_daemon:
                redirect_output()
            self._begin(
                settings, self._listeners.provide(settings.services, self._mold.listeners), clients
            )
        except ConfigError as error:
            self._reply_failed(clients, error.problems)
        except (CannotListen, OSError) as error:
            self._reply_failed(clients, [str(error)])

    def _begin(self, settings: Settings, listeners: dict[str, Any], clients: list[Client]) -> None:
        """Fork the mold of a new generation."""
        self._generations += 1
        mold = Mold(self._generations, settings, listeners)
        self._molds[mold.number] = mold
        try:
            mold.start(self._start_mold, self._leave)
        except OSError:
            del self._molds[mold.number]
            if self._mold is not None:
                self._listeners.keep(self._mold.listeners)
            raise
        self._poll.register(mold.channel, select.POLLIN)
        self._change = _Change(mold, clients)

    def _code_loaded(self, mold: Mold, functions: dict[str, list[str]]) -> None:
        if self._stop_stage or mold.is_dismissed:
            return
        mold.functions = functions
        self._mold = mold
        self.settings = mold.settings
        self._roster.stop_timeout = mold.settings.stop_timeout
        services = mold.settings.services
        plans = {each.name: Plan(each.count, each.hard_timeout) for each in services}
        self._roster.loaded(mold.number, plans)

    def _finish_change(self, now: float) -> None:
        """See whether the start or reload is complete."""
        change = self._change
        if change is None or change.mold is not self._mold or self._stop_stage:
            return
        is_reload = self._reporter.is_told
        if not (self._roster.has_taken_over if is_reload else self._roster.is_up):
            return
        change.settled = min(change.settled, now)
        if self._is_leaver_accepting() and now < change.settled + SWEEP_SECONDS:
            return
        self._change = None
        self._mold_failures = 0
        self._listeners.keep(change.mold.listeners)
        for name, listener in change.mold.listeners.items():
            count = self._roster.plans[name].count
            workers = "1 worker" if count == 1 else f"{count} workers"
            log.info("%s ready: %s, %s", name, listener.bound, workers)
        self._notifier.ready(self._status.summary())
        self._reporter.tell(0, "")
        for client in change.clients:
            client.reply(ok=True, message=f"reloaded, generation {change.mold.number}")
        self._reload_again()

    def _is_leaver_accepting(self) -> bool:
        """A worker that drains has not closed its listening socket yet."""
        return any(
            process.phase == Phase.DRAINING
            and self._status.cell(process, board.STATE) == State.READY
            for process in self._roster.processes
        )

    def _fail_change(self, mold: Mold, problems: list[str], now: float, code: int = FAILED) -> None:
        """The new code or its workers cannot run; the present ones go on."""
        mold.dismiss()
        change = self._change
        if change is None or change.mold is not mold or self._stop_stage:
            return
        self._change = None
        if self._mold is None:
            self._give_up(code, "\n".join(problems))
            return
        self.settings = self._mold.settings
        self._listeners.keep(self._mold.listeners)
        self._reply_failed(change.clients, problems)
        if not self._mold.pid:
            self._retry_mold(now)
        self._reload_again()

    def _reply_failed(self, clients: list[Client], problems: list[str]) -> None:
        log.error("reload failed, the previous code goes on: %s", "; ".join(problems))
        self._notifier.ready(f"Reload failed: {problems[0]}")
        for client in clients:
            client.reply(
                ok=False, message="reload failed, the previous code goes on", problems=problems
            )

    def _reload_again(self) -> None:
        clients, self._reload_wanted = self._reload_wanted, None
        if clients is not None:
            self._reload(clients)

    def _mold_ended(self, mold: Mold, status: int, now: float) -> None:
        self._roster.mold_lost(mold.number, now)
        if mold.is_dismissed or self._stop_stage:
            return
        reason = f"the process that loads the code has ended: {describe_exit(status)}"
        if mold is not self._mold:  # while it loaded
            self._fail_change(mold, [reason], now)
            return
        log.warning("%s; starting another", reason)
        if self._change is not None and self._change.mold is mold:
            self._reply_failed(self._change.clients, [reason])
            self._change = None
        self._retry_mold(now)

    def _retry_mold(self, now: float) -> None:
        index = min(self._mold_failures, len(MOLD_BACKOFF_SECONDS) - 1)
        self._mold_failures += 1
        self._mold_at = now + MOLD_BACKOFF_SECONDS[index]

    # -- stop ---------------------------------------------------------------------------------

    def _stop(self, number: int) -> None:
        """Stop; asked again, with less patience."""
        stage = max(self._stop_stage + 1, 2 if number == signal.SIGINT else 1)
        log.info("%s: %s", signal.Signals(number).name, STAGES[min(stage, 3)])
        if not self._reporter.is_told:
            self._tell_failure(0, "stopped before it was ready")
        self._leave_service(min(stage, 3))

    def _give_up(self, code: int, reason: str) -> None:
        """End the program, as it cannot start."""
        self._tell_failure(code, reason)
        self._leave_service(2)

    def _tell_failure(self, code: int, reason: str) -> None:
        self._exit_code = code
        if self.settings.log_file:
            log.error("%s", reason)
        self._reporter.tell(code, reason)

    def _leave_service(self, stage: int) -> None:
        now = monotonic()
        if not self._stop_stage:
            self._refuse_at = now + SWEEP_SECONDS
            self._listeners.hold_off()
            self._notifier.stopping("Finishing what runs")
            for mold in self._molds.values():
                mold.dismiss()
            for client in self._change.clients if self._change else ():
                client.reply(ok=False, message="the service is stopping")
        self._stop_stage = stage
        (self._roster.drain, self._roster.hurry, self._roster.kill)[stage - 1](now)

    def _finish_stop(self, now: float) -> None:
        if not self._stop_stage:
            return
        if self._refuse_at < math.inf and (
            now >= self._refuse_at or not self._is_leaver_accepting()
        ):
            self._refuse_at = math.inf
            self._listeners.keep({})
        if self._roster.processes or any(mold.pid for mold in self._molds.values()):
            return
        if self._roster.was_cut_off:
            log.warning("tasks were cut off: they did not finish within stop_timeout")
            self._exit_code = self._exit_code or FAILED
        if not self._exit_code:
            log.info("stopped")
        for client in self._stop_clients:
            client.reply(ok=not self._roster.was_cut_off, pid=os.getpid())
        self._is_over = True


def _has_terminal() -> bool:
    """There is a terminal that can hang up."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True
