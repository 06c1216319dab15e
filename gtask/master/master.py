"""The supervisor: carries out what roster, change and stop decide, and tells them what happens.

One thread, one poll(2), no event loop: signals arrive through a pipe, children by waitpid(2), what
molds and workers say on two socket pairs for each generation, operators on the control socket. It
imports neither gevent nor any user code, so that nothing a task does can end it. Should there be a
mistake in what is done about one thing that happens, that is logged, and all else goes on.
"""

from __future__ import annotations

import logging
import os
import select
from collections.abc import Callable, Iterable
from time import monotonic

from .. import native
from ..config import Settings
from ..errors import ConfigError
from ..logs.loggers import get_logger
from ..logs.setup import look_after_log
from ..process import MASTER_TITLE, adopt_orphans, set_title
from . import actions
from .change import Change
from .channels import Channels
from .children import reap, send_signal
from .chores import Chores
from .complaints import Complaints
from .control import Control
from .daemon import Reporter
from .exits import describe_exit
from .hearing import Hearing
from .molds import Molds, StartMold
from .operators import Operators
from .resources import CannotStart, Resources, starting
from .roster import Roster
from .sockets import CannotListen
from .status import Status
from .stop import Stop
from .stores import StartStore
from .succession import Succession

log = get_logger("gtask.master")

LOG_SECONDS = 1.0  # what the end may wait for the reader of standard error


class Master:
    """Runs the services that `settings` describe until a signal or an operator stops it.

    Args:
        settings: of the whole tree.
        start_mold: what a mold process does; called in the forked child.
        start_store: what the process of a store does.
        load: reads the settings again at each reload; without it, a reload forks anew and no more.
        reporter: reports how the start went.
        is_daemon: standard output and error go where the log goes.
    """

    def __init__(
        self,
        settings: Settings,
        start_mold: StartMold,
        *,
        start_store: StartStore | None = None,
        load: Callable[[], Settings] | None = None,
        reporter: Reporter | None = None,
        is_daemon: bool = False,
    ) -> None:
        self._reporter = reporter or Reporter()
        self._poll = native.poll()
        self._complaints = Complaints()
        self._molds = Molds()
        self._roster = Roster(settings.stop_timeout)
        self._change = Change()
        self._stop = Stop(os.getpid())
        self._status = Status(self._roster, self._molds)
        self._channels = Channels(self._poll, self._molds, self._complaints)
        self._succession = Succession(
            settings,
            start_mold,
            start_store,
            load,
            self._molds,
            self._roster,
            self._change,
            self._channels,
            self._reporter,
            is_daemon=is_daemon,
        )
        self._stores = self._succession.stores
        self._operators = Operators(
            self._roster,
            self._status,
            self._change,
            self._stop,
            is_daemon=is_daemon,
            stores=self._stores.describe,
        )
        self._hearing = Hearing(
            self._molds, self._roster, self._change, self._operators, self._complaints
        )
        self._is_over = False

    @property
    def settings(self) -> Settings:
        """Those in use."""
        return self._succession.settings

    def run(self) -> int:
        """Start, serve, stop; returns the exit code."""
        self._resources = Resources(self.settings)
        try:
            self._start()
            while not self._is_over:
                self._run_once()
        except CannotStart as error:
            self._stop.exit_code = error.code
            self._succession.report_failure(error.code, str(error))
        finally:
            self._resources.close()
            look_after_log(LOG_SECONDS)
        return self._stop.exit_code

    def _start(self) -> None:
        resources = self._resources
        self._poll.register(resources.signals, select.POLLIN)
        self._chores = Chores(self._roster, self._status, resources.notifier)
        with starting():
            adopt_orphans()
            set_title(f"{MASTER_TITLE} {self.settings.file}".rstrip())
            self._succession.start(resources, self._watch)
        for name, _ in resources.listeners.passed:
            log.warning("systemd passes a socket, %r, that no service listens on", name)

    def _watch(self, fd: int, events: int) -> None:
        """Have the loop wait for events of a descriptor, or for none if they are 0."""
        if events:
            self._poll.register(fd, events)
        else:
            self._poll.unregister(fd)

    # -- the loop -----------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Wait until something happens or is due, then do all that follows from it."""
        for fd, events in self._poll.poll(self._wait_seconds() * 1000):
            with self._complaints.going_on():
                self._serve(fd, events)
        # Whatever a worker said, it said before it died. So what is read after the reaping is all
        # that the dead have said.
        dead = reap()
        now = monotonic()
        with self._complaints.going_on():
            self._hear({pid for pid, _ in dead}, now)
        for pid, status in dead:
            with self._complaints.going_on():
                self._ended(pid, status, now)
        for step in (self._tick, self._decide, self._watch_progress, self._talk):
            with self._complaints.going_on():
                step(now)

    def _hear(self, dead: set[int], now: float) -> None:
        messages, letters = self._hearing.read()
        for heard in messages:
            with self._complaints.going_on():
                self._perform_all(self._hearing.take(heard, now), now)
        self._hearing.welcome(dead, now)
        for heard in letters:
            with self._complaints.going_on():
                self._perform_all(self._hearing.take(heard, now), now)

    def _tick(self, now: float) -> None:
        """Do what is due, as time has passed."""
        self._perform_all(self._change.tick(now, self._roster.standing), now)
        if self._resources.control is not None:
            self._resources.control.tick(now)
        self._chores.do(
            now,
            is_serving=self._change.has_started and not self._stop.is_under_way,
            is_changing=self._change.is_under_way or self._stop.is_under_way,
        )

    def _decide(self, now: float) -> None:
        self._perform_all(self._roster.decide(now), now)
        self._stores.tick(now)

    def _talk(self, now: float) -> None:
        """Answer the operators whose surveys are over; ask the molds for what is wanted of them."""
        self._operators.finish_surveys(now)
        self._channels.tick(now)
        look_after_log()

    def _wait_seconds(self) -> float:
        now = monotonic()
        parts = (self._roster, self._change, self._stop, self._hearing, self._stores)
        return max(0.0, min(self._chores.wake_at, *(part.wake_at(now) for part in parts)) - now)

    def _watch_progress(self, now: float) -> None:
        """See whether the start, reload or stop that is under way is complete."""
        if self._change.awaits_workers:
            following = self._change.progressed(
                now,
                is_up=self._roster.is_up,
                has_taken_over=self._roster.has_taken_over,
                is_drainer_accepting=self._status.is_drainer_accepting,
            )
            self._perform_all(following, now)
        if self._stop.is_under_way:
            is_any_worker_left = bool(self._roster.processes) or self._molds.is_any_alive
            if not is_any_worker_left:
                self._stores.stop(now)
            following = self._stop.progressed(
                now,
                is_drainer_accepting=self._status.is_drainer_accepting,
                is_anybody_left=is_any_worker_left or self._stores.is_any_alive,
                was_cut_off=self._roster.was_cut_off,
            )
            self._perform_all(following, now)

    # -- what happens -------------------------------------------------------------------------

    def _serve(self, fd: int, events: int) -> None:
        """Do what poll(2) says about a descriptor; what molds and workers say is read in each round."""
        signals, control = self._resources.signals, self._resources.control
        if fd == signals.fileno():
            now = monotonic()
            for request in signals.read():
                self._perform_all(self._operators.signalled(request, now), now)
        elif control is not None and control.owns(fd):
            try:
                self._serve_operator(control, fd, events)
            except Exception:
                control.drop(fd)  # or the same would happen again
                raise
        else:
            self._channels.serve(fd, events)

    def _serve_operator(self, control: Control, fd: int, events: int) -> None:
        if asked := control.serve(fd, events):
            now = monotonic()
            self._perform_all(self._operators.answer(*asked, self.settings, now), now)

    def _ended(self, pid: int, status: int, now: float) -> None:
        """A child has ended: a worker, a mold, a store's, or an orphan that one has left to us."""
        self._stores.ended(pid, status, now)
        process = self._roster.find(pid)
        if process is not None:
            of = self._molds[process.generation].stacks
            self._status.ended(process)
            self._roster.exited(pid, status, now)
            self._log_stacks(
                f"{process.name} ({pid})", status, of.take(process.service, process.row)
            )
        mold = self._molds.ended(pid)
        if mold is not None:
            self._roster.mold_lost(mold.number, now)
            how = describe_exit(status)
            self._perform_all(self._change.mold_ended(mold.number, how, now), now)
            self._log_stacks(f"mold {mold.number} ({pid})", status, mold.stacks.take_mold())
        self._forget_generations()

    def _log_stacks(self, name: str, status: int, stacks: str) -> None:
        """Log what a process has written when it died of a fault, or was killed as it was stuck."""
        if stacks:
            log.log(logging.ERROR, "%s: %s; its stacks", name, describe_exit(status), stacks=stacks)

    def _forget_generations(self) -> None:
        needed = {each.generation for each in self._roster.processes}
        for mold in self._molds.remove_ended(
            {*needed, self._change.present, self._roster.generation}
        ):
            self._channels.remove(mold)

    # -- what follows -------------------------------------------------------------------------

    def _perform_all(self, following: Iterable[actions.Action], now: float) -> None:
        for action in following:
            with self._complaints.going_on():
                self._perform(action, now)

    def _perform(self, action: actions.Action, now: float) -> None:
        match action:
            case actions.Say(text, is_trouble):
                log.log(logging.WARNING if is_trouble else logging.INFO, "%s", text)
            case actions.Reply(client, answer):
                client.reply(**answer)
            case actions.Spawn(generation, service, worker_id, row):
                self._molds[generation].spawn(service, worker_id, row)
            case actions.Signal(pid, number):
                self._send_signal(pid, number, now)
            case actions.Dismiss(generation):
                self._molds.dismiss(generation)
            case actions.Abort(generation):
                self._molds[generation].abort()
            case actions.Withdraw():
                self._roster.withdraw()
            case actions.Abandon(generation, reason):
                present = self._roster.generation
                self._perform_all(self._change.abandoned(generation, present, reason, now), now)
            case actions.Begin():
                self._begin(now)
            case actions.TakeOver(generation):
                self._succession.take_over(self._molds[generation])
            case actions.GoBack(generation):
                self._succession.go_back(self._molds[generation])
            case actions.Complain(problems):
                self._succession.complain(problems)
            case actions.Complete(generation):
                self._succession.complete(self._molds[generation], self._status)
            case actions.Halt(reason, code):
                self._succession.report_failure(code, reason)
                self._perform_all(self._stop.given_up(code, now), now)
            case actions.StopServing():
                self._stop_serving(now)
            case actions.StopWorkers(stage):
                (self._roster.drain, self._roster.hurry, self._roster.kill)[stage - 1](now)
            case actions.StopAccepting():
                self._resources.listeners.keep({})
            case actions.End():
                self._is_over = True

    def _send_signal(self, pid: int, number: int, now: float) -> None:
        if not send_signal(pid, number):
            self._ended(pid, 0, now)  # a script's own waitpid has reaped our child

    def _begin(self, now: float) -> None:
        try:
            self._succession.begin(now)
        except ConfigError as error:
            self._perform_all(self._change.not_begun(error.problems, now), now)
        except (CannotListen, OSError) as error:
            self._perform_all(self._change.not_begun([str(error)], now), now)
        except Exception as error:
            self._perform_all(self._change.not_begun([repr(error)], now), now)
            raise

    def _stop_serving(self, now: float) -> None:
        if not self._reporter.has_reported:
            self._succession.report_failure(0, "stopped before it was ready")
        self._resources.listeners.hold_off()
        self._resources.notifier.stopping("Finishing what runs")
        self._molds.dismiss_all()
        self._perform_all(self._change.stop(), now)
