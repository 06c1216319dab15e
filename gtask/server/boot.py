"""A worker process: made in the mold, then forked to boot, serve, beat and drain.

All that a worker can have before its fork is made by the mold, its hub included, so that it is
there once for a hundred workers. A worker writes on every page that it looks at, since each look
at a Python object counts its references: the less it does after its fork, the more it shares.

A worker is a gevent `StreamServer` that is started on the master's listening socket. It talks to the
master by the scoreboard and by messages on a socket; it listens to TERM (drain), HUP (a TERM that
follows is a reload's), URG (others will accept what nobody has accepted yet), INT (stop now) and
USR2 (report connections). What user code raises, wherever it does, ends no more than the greenlet it
is raised in.
"""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event

from ..logs.loggers import get_logger
from ..logs.setup import look_after_log
from ..net.async_tcp import close_in_child
from ..net.reactor import current_reactor
from ..net.timer import Timer
from ..patches.forked import when_forked
from ..patches.leftovers import end_if_forked
from ..process import resident_bytes
from ..scoreboard import Scoreboard, WorkerState
from .bootlimit import BootLimit
from .callbacks import CallbackService
from .engine import Engine
from .entrance import Entrance
from .interface import Service
from .load import describe
from .lobby import Lobby
from .messenger import Messenger
from .service import TaskService
from .signals import Signals
from .stats import WorkerStats

if TYPE_CHECKING:
    from ..config import ServiceSettings
    from ..worker import Worker

log = get_logger(__name__)

BEAT_SECONDS = 0.25
CHECK_SECONDS = 1.0  # between checks of limits: memory, idle connections, new siblings
DRAIN_CHECK_SECONDS = 0.05
DRAIN_IDLE_SECONDS = 1.0  # what a peer that was told to go may stay silent
RELOAD_SECONDS = 1.0  # from a HUP to the TERM that belongs to it, at most
REPORT_CONNECTIONS = 50  # a message to the master
FAREWELL_SECONDS = 1.5  # of a worker that is told to stop now; the master kills after 2
NEVER = 1e9  # seconds
FAILED_TO_BOOT = 1


class WorkerProcess:
    """What workers of one service are forked from.

    Args:
        worker: what the user declared.
        settings: the service's, checked.
        listener: the master's listening socket, non-blocking; None if tasks come from a store alone.
        scoreboard: that of the service and its generation.
        events: where messages to the master go, a SOCK_SEQPACKET socket.
        stop_timeout: seconds a drain may take.
        tls: the service's certificates, or None.
        boot_timeout: seconds until it is ready, at most; 0: any time.
        others: more listening sockets, where the service has several addresses.
        lobby: the two ends of where connections of the service wait that have no turn.
    """

    def __init__(
        self,
        worker: Worker,
        settings: ServiceSettings,
        listener: socket.socket | None,
        scoreboard: Scoreboard,
        events: socket.socket,
        stop_timeout: float,
        tls: ssl.SSLContext | None = None,
        boot_timeout: float = 0.0,
        others: Sequence[socket.socket] = (),
        lobby: tuple[socket.socket, socket.socket] | None = None,
    ) -> None:
        self.worker = worker
        self.settings = settings
        self.master = Messenger(events)
        self.stop_timeout = stop_timeout
        self.boot_limit = BootLimit(boot_timeout, self.tell_failure)
        is_single = bool(worker.served) and settings.concurrency == 1
        self.stats = WorkerStats(scoreboard, runs_one_at_a_time=is_single)
        self.reactor = current_reactor()
        self.row = self.pid = 0
        self.signalled = Event()  # TERM or INT came
        self.is_hurried = False
        self.is_reloading = False
        self.has_booted = False
        self.has_heirs = False  # others accept at our address
        self.reload_told = -math.inf
        self.ended_by = math.inf  # the moment at which the process ends in any case
        self.asked_to_go = False
        self.loss = "interrupted"  # what becomes of durable tasks that a drain cuts off
        self.max_tasks = self.max_rss = self.next_check = 0.0
        loop = self.reactor.loop
        self.signals = Signals(
            loop,
            {
                signal.SIGTERM: self.on_term,
                signal.SIGINT: self.on_int,
                signal.SIGHUP: self.on_hup,
                signal.SIGURG: self.on_heirs,
                signal.SIGUSR2: self.on_report,
            },
        )
        self.watchers = [
            (loop.timer(BEAT_SECONDS, BEAT_SECONDS), self.beat),
        ]
        can_pass_on = bool(worker.served) and tls is None
        self.entrance = Entrance(
            settings,
            self.reactor,
            self.stats,
            [] if listener is None else [listener, *others],
            tls,
            Lobby(lobby) if can_pass_on and lobby is not None else None,
            is_strict=is_single,
        )
        self.queues: Any = None  # the stores of a service that has some
        self.service = self.entrance.service = self.make_service()

    def make_service(self) -> Service:
        """What serves the connections."""
        worker, settings = self.worker, self.settings
        debts = self.reactor.debts
        debts.max_bytes = settings.max_pending_bytes
        debts.send_timeout = settings.send_timeout
        debts.handshake_timeout = settings.handshake_timeout
        if settings.listen.protocol == "websocket":
            from .web.service import WebSocketService  # not for text services: it takes memory

            return WebSocketService(
                worker,
                self.reactor,
                self.stats,
                is_tls=self.entrance.tls is not None,
                networks=self.entrance.networks,
                handshake_timeout=settings.handshake_timeout or NEVER,
                send_timeout=settings.send_timeout,
            )
        if not worker.served:
            return CallbackService(worker, self.reactor, self.stats)
        engine = Engine(
            worker.served,
            self.reactor,
            self.stats,
            concurrency=settings.concurrency,
            task_timeout=settings.task_timeout,
            max_frame_bytes=settings.max_frame_bytes,
            max_batch=settings.max_batch,
            max_send_buffer_bytes=settings.max_send_buffer_bytes,
            max_pending_bytes=settings.max_pending_bytes,
        )
        engine.turns.on_full = self.entrance.fairness.reconsider
        engine.limits.on_abandoned = self.on_abandoned
        engine.threads.on_stuck = self.on_stuck
        if settings.stores:
            from .queue.forward import make_queues  # not for services without: it takes memory

            self.queues = engine.queues = make_queues(engine, settings)
        return TaskService(engine)

    # -- the three parts of its life ----------------------------------------------------------

    def run(self, worker_id: int, row: int, before_end: Callable[[int], None] | None = None) -> int:
        """Be a worker until told to stop, in a process just forked; returns its exit code so far.

        Args:
            worker_id: 0 to count - 1; a replacement gets its predecessor's.
            row: the process's row on the scoreboard.
            before_end: called with the exit code when all is done but the user's last callback.
        """
        code = self.serve(worker_id, row)
        if self.is_hurried or self.ended_by == math.inf:  # told to stop now, or not even booted
            self.ended_by = monotonic() + FAREWELL_SECONDS
        if before_end is not None:
            before_end(code)
        if self.has_booted:
            self.call("on_worker_stop")
        Timer.delete_all()
        return code

    def serve(self, worker_id: int, row: int) -> int:
        """Boot, wait for what ends us, drain."""
        try:
            self.boot(worker_id, row)
        except BaseException as error:  # the edge: on_worker_start is user code
            end_if_forked(error)
            self.tell_failure(describe(error))
            log.error("worker %s %d cannot start", self.worker.name, worker_id, exc_info=error)
            return FAILED_TO_BOOT
        self.signalled.wait()
        if self.is_reloading:
            self.call("on_worker_reload")
        return self.drain()

    def boot(self, worker_id: int, row: int) -> None:
        """Listen to signals, call `on_worker_start`, accept."""
        gevent.reinit()  # the loop has the mold's epoll, which must not be shared
        self.boot_limit.start()
        self.row = self.master.row = row
        self.pid = os.getpid()
        self.worker.id = worker_id
        look_after_log()
        self.stats.boot(row, os.getpid())
        self.max_tasks = _with_jitter(self.settings.max_tasks)
        self.max_rss = _with_jitter(self.settings.max_rss_mb) * 1024 * 1024
        self.next_check = monotonic() + CHECK_SECONDS
        self.signals.start()
        for watcher, action in self.watchers:
            watcher.start(action)
        when_forked(self.after_fork_in_child)
        if self.worker.on_worker_start is not None:
            self.worker.on_worker_start(self.worker)
            end_if_forked(None)
        self.entrance.open()
        if self.queues is not None:
            self.queues.each("start", worker_id == 0)
        self.boot_limit.stop()
        self.has_booted = True
        self.stats.state(WorkerState.READY)
        self.entrance.fairness.refresh()
        self.master.tell("ready")

    def drain(self) -> int:
        """Accept no more, let running work end; returns 0, or 1 if it was cut off."""
        deadline = self.ended_by = monotonic() + self.stop_timeout
        self.entrance.close(has_heirs=self.has_heirs)
        # Told only now: the master may then have the kernel refuse what is still in the queue.
        self.stats.state(WorkerState.DRAINING)
        if self.queues is not None:
            self.queues.each("drain", self.loss)
        if not self.is_hurried:
            self.service.drain()
            while not self.is_idle and monotonic() < deadline and not self.is_hurried:
                self.close_idle(DRAIN_IDLE_SECONDS)
                self.signalled.clear()
                self.signalled.wait(DRAIN_CHECK_SECONDS)
        is_clean = not self.service.has_work
        self.service.stop()
        self.service.abort()
        return 0 if is_clean or self.is_hurried else 1

    @property
    def is_idle(self) -> bool:
        """Nothing runs, waits or is connected."""
        return self.service.is_idle and self.entrance.is_idle

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections that wait for nothing and were silent for so long."""
        self.service.close_idle(idle_seconds)
        self.entrance.close_idle(idle_seconds)

    def patience(self) -> float:
        """Seconds that threads of the user's may take to end."""
        return 0.0 if self.is_hurried else (self.ended_by - monotonic()) / 2

    def call(self, name: str) -> None:
        """Call one of the worker's callbacks, if it is set."""
        callback = getattr(self.worker, name)
        if callback is not None:
            try:
                callback(self.worker)
                end_if_forked(None)
            except BaseException:  # the edge to user code
                log.exception("%s failed", name)

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: it must neither take our connections and calls,
        nor hold them open, nor be taken for us."""
        self.stats.after_fork_in_child()
        for watcher, _ in self.watchers:
            watcher.stop()
        self.entrance.after_fork_in_child()
        self.service.after_fork_in_child()
        for lingering in list(self.reactor.lingering):
            lingering.end()
        close_in_child()
        self.master.close()

    # -- signals and timers, in the hub -------------------------------------------------------

    def on_term(self) -> None:
        if not self.has_booted:
            os._exit(0)  # nobody waits for anything
        # A HUP of long ago was a terminal's, which is nothing to us.
        self.is_reloading = monotonic() - self.reload_told < RELOAD_SECONDS
        self.signalled.set()

    def on_heirs(self) -> None:
        self.has_heirs = True  # the master sends TERM right after it

    def on_hup(self) -> None:
        self.reload_told = monotonic()  # the master sends TERM right after it

    def on_int(self) -> None:
        self.is_hurried = True
        self.signalled.set()

    def on_report(self) -> None:
        self.master.forget("connections")
        report = self.service.report()
        for start in range(0, max(1, len(report)), REPORT_CONNECTIONS):
            part = report[start : start + REPORT_CONNECTIONS]
            last = start + REPORT_CONNECTIONS >= len(report)
            self.master.tell("connections", connections=part, first=not start, last=last)

    def on_abandoned(self, function: str) -> None:
        self.loss = "worker_lost"
        self.ask_to_go(f"task {function} ignores its time limit")

    def on_stuck(self, threads: int) -> None:
        self.entrance.fairness.reconsider()  # it may be full now
        self.ask_to_go(f"{threads} threads of blocking tasks are stuck")

    def beat(self) -> None:
        """Tell the master that the loop turns, and check the limits now and then."""
        self.stats.beat(*self.service.oldest())
        self.master.flush()
        look_after_log()
        if self.queues is not None:
            self.queues.each("beat")
        now = monotonic()
        if now < self.next_check or self.signalled.is_set():
            return
        self.next_check = now + CHECK_SECONDS
        self.entrance.fairness.refresh()
        if self.settings.idle_timeout:
            self.close_idle(self.settings.idle_timeout)
        if self.max_tasks and self.stats.done >= self.max_tasks:
            self.ask_to_go(f"max_tasks: {self.stats.done} tasks done")
        elif self.max_rss and (rss := resident_bytes(os.getpid())) > self.max_rss:
            self.loss = "worker_lost"
            self.ask_to_go(f"max_rss_mb: {rss / 1048576:.0f} MB resident")

    def ask_to_go(self, reason: str) -> None:
        """Ask for a replacement; the master drains us when that is up."""
        if not self.asked_to_go:
            self.asked_to_go = True
            self.master.tell("recycle", reason=reason)

    def tell_failure(self, reason: str) -> None:
        self.master.tell_at_last("failed", reason=reason)


def _with_jitter(limit: float) -> float:
    """Up to a tenth less, so that workers of one age are not recycled together."""
    return limit and limit * random.uniform(0.9, 1.0)
