"""A worker process: made in the mold, then forked to boot, serve, beat and drain.

All that a worker can have before its fork is made by the mold, its hub included, so that it is
there once for a hundred workers. A worker writes on every page that it looks at, since each look
at a Python object counts its references: the less it does after its fork, the more it shares.

A worker is a gevent `StreamServer` that is started on the master's listening socket. It talks to the
master by the scoreboard and by messages on a socket; it listens to TERM (drain), HUP (a TERM that
follows is a reload's), INT (stop now) and USR2 (report connections).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import random
import signal
import socket
import ssl
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import gevent
import ujson
from gevent.event import Event

from ..address import format_address
from ..net.async_tcp import close_in_child
from ..net.reactor import current_reactor
from ..net.timer import Timer
from ..patches.forked import when_forked
from ..patches.leftovers import end_if_forked
from ..process import resident_bytes
from ..protocols.tls import TlsFilter
from ..scoreboard import Scoreboard, State
from .callbacks import CallbackService
from .engine import Engine
from .fairness import Fairness
from .load import describe
from .service import TaskService
from .shared_listener import SharedListener
from .stats import WorkerStats

if TYPE_CHECKING:
    from ..config import ServiceSettings
    from ..worker import Worker

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
CHECK_SECONDS = 1.0  # between checks of limits: memory, idle connections, new siblings
DRAIN_CHECK_SECONDS = 0.05
DRAIN_IDLE_SECONDS = 1.0  # what a peer that was told to go may stay silent
REPORT_CONNECTIONS = 50  # a message to the master
FAILED_TO_BOOT = 1


class Service(Protocol):
    """What serves the connections of a worker: tasks, callbacks, or websockets and HTTP."""

    @property
    def is_full(self) -> bool:
        """No connection may be accepted now."""
        ...

    @property
    def is_idle(self) -> bool:
        """Nothing runs, waits or is connected."""
        ...

    def make_server(self, listener: socket.socket) -> SharedListener:
        """The server that accepts connections for it, not started."""
        ...

    def accept(self, socket: Any, address: Any, tls: TlsFilter | None = None) -> None:
        """Serve the peer on `socket`; hub only."""

    def poll(self) -> None:
        """Serve what has come already, before the loop turns."""

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: leave the connections to the worker."""

    def drain(self) -> None:
        """Let the peers go."""

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections that wait for nothing and were silent for so long."""

    def stop(self) -> None:
        """The drain's time is up: start nothing more."""

    def abort(self) -> None:
        """Close every connection now."""

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        ...

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        ...


class WorkerProcess:
    """What workers of one service are forked from.

    Args:
        worker: what the user declared.
        settings: the service's, checked.
        listener: the master's listening socket, non-blocking.
        scoreboard: that of the service and its generation.
        events: where messages to the master go, a SOCK_SEQPACKET socket.
        stop_timeout: seconds a drain may take.
        tls: the service's certificates, or None.
    """

    def __init__(
        self,
        worker: Worker,
        settings: ServiceSettings,
        listener: socket.socket,
        scoreboard: Scoreboard,
        events: socket.socket,
        stop_timeout: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.worker = worker
        self.settings = settings
        self.events = events
        self.stop_timeout = stop_timeout
        self.stats = WorkerStats(scoreboard)
        self.reactor = current_reactor()
        self.row = self.pid = 0
        self.signalled = Event()  # TERM or INT came
        self.is_hurried = False
        self.is_reloading = False
        self.is_told_ready = self.asked_to_go = False  # by messages that the master has taken
        self.max_tasks = self.max_rss = self.next_check = 0.0
        self.title = f"gtask: {settings.name} %d {settings.listen}"
        self.tls = tls
        loop = self.reactor.loop
        self.watchers = [
            (loop.signal(signal.SIGTERM), self.on_term),
            (loop.signal(signal.SIGINT), self.on_int),
            (loop.signal(signal.SIGHUP), self.on_hup),
            (loop.signal(signal.SIGUSR2), self.on_report),
            (loop.timer(BEAT_SECONDS, BEAT_SECONDS), self.beat),
        ]
        self.fairness = Fairness(
            loop,
            self.stats,
            self.is_full,
            siblings=settings.count,
            is_strict=bool(worker.served) and settings.concurrency == 1,
        )
        self.listener = listener
        self.service = self.make_service()
        self.server: SharedListener | None = None  # made in the worker

    def make_service(self) -> Service:
        """What serves the connections."""
        worker, settings = self.worker, self.settings
        if settings.listen.protocol == "websocket":
            from .web.service import WebSocketService  # not for text services: it takes memory

            return WebSocketService(worker, self.reactor, self.stats, is_tls=self.tls is not None)
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
        )
        engine.turns.on_full = self.fairness.reconsider
        engine.limits.on_abandoned = self.on_abandoned
        engine.threads.on_stuck = self.on_stuck
        return TaskService(engine)

    # -- the three parts of its life ----------------------------------------------------------

    def run(self, worker_id: int, row: int) -> int:
        """Be a worker until told to stop, in a process just forked; returns the exit code.

        Args:
            worker_id: 0 to count - 1; a replacement gets its predecessor's.
            row: the process's row on the scoreboard.
        """
        try:
            self.boot(worker_id, row)
        except BaseException as error:  # the edge: on_worker_start is user code
            end_if_forked(error)
            log.error("worker %s %d cannot start", self.worker.name, worker_id, exc_info=error)
            self.tell_master("failed", reason=describe(error))
            return FAILED_TO_BOOT
        self.signalled.wait()
        if self.is_reloading:
            self.call("on_worker_reload")
        code = self.drain()
        self.farewell()
        return code

    def boot(self, worker_id: int, row: int) -> None:
        """Listen to signals, call `on_worker_start`, accept."""
        gevent.reinit()  # the loop has the mold's epoll, which must not be shared
        self.row = row
        self.pid = os.getpid()
        self.worker.id = worker_id
        self.stats.boot(row, os.getpid())
        self.max_tasks = _with_jitter(self.settings.max_tasks)
        self.max_rss = _with_jitter(self.settings.max_rss_mb) * 1024 * 1024
        self.next_check = monotonic() + CHECK_SECONDS
        for watcher, action in self.watchers:
            watcher.start(action)
        when_forked(self.after_fork_in_child)
        if self.worker.on_worker_start is not None:
            self.worker.on_worker_start(self.worker)
            end_if_forked(None)
        self.server = self.service.make_server(self.listener)
        self.server.share(self.accept, self.fairness, self.service.poll)
        self.server.start()
        self.stats.state(State.READY)
        self.fairness.refresh()
        self.is_told_ready = self.tell_master("ready")

    def drain(self) -> int:
        """Accept no more, let running work end; returns 0, or 1 if it was cut off."""
        deadline = monotonic() + self.stop_timeout
        if self.server is not None:
            self.server.finish()
        # Told only now: the master may then have the kernel refuse what is still in the queue.
        self.stats.state(State.DRAINING)
        if not self.is_hurried:
            self.service.drain()
            while not self.service.is_idle and monotonic() < deadline and not self.is_hurried:
                self.service.close_idle(DRAIN_IDLE_SECONDS)
                self.signalled.clear()
                self.signalled.wait(DRAIN_CHECK_SECONDS)
        self.service.stop()
        is_clean = bool(self.service.is_idle)
        self.service.abort()
        return 0 if is_clean or self.is_hurried else 1

    def farewell(self) -> None:
        self.call("on_worker_stop")
        Timer.delete_all()

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
        if self.server is not None:
            self.server.after_fork_in_child()
        self.service.after_fork_in_child()
        close_in_child()
        self.listener.close()
        self.events.close()

    # -- connections --------------------------------------------------------------------------

    def is_full(self) -> bool:
        return self.service.is_full or self.stats.connections >= self.settings.max_connections

    def accept(self, client: Any, address: Any) -> None:
        """Take up a connection, if its network may connect; runs in the hub."""
        if self.settings.allow and not self.is_allowed(address):
            self.stats.refused()
            log.debug("refused %s", format_address(address))
            client.close()
            return
        before = self.stats.connections
        self.stats.accepted()
        try:
            tls = TlsFilter(self.tls, server_side=True) if self.tls is not None else None
            self.service.accept(client, address, tls)
        except BaseException:
            if self.stats.connections > before:  # the service has not counted it out itself
                self.stats.closed(0, 0)
            raise

    def is_allowed(self, address: Any) -> bool:
        if not isinstance(address, tuple):
            return True  # a unix socket: its mode says who may connect
        host = ipaddress.ip_address(address[0].partition("%")[0])
        host = getattr(host, "ipv4_mapped", None) or host
        return any(host in network for network in self.settings.allow)

    # -- signals and timers, in the hub -------------------------------------------------------

    def on_term(self) -> None:
        self.signalled.set()

    def on_hup(self) -> None:
        self.is_reloading = True  # the master sends TERM right after it

    def on_int(self) -> None:
        self.is_hurried = True
        self.signalled.set()

    def on_report(self) -> None:
        report = self.service.report()
        for start in range(0, max(1, len(report)), REPORT_CONNECTIONS):
            part = report[start : start + REPORT_CONNECTIONS]
            last = start + REPORT_CONNECTIONS >= len(report)
            self.tell_master("connections", connections=part, last=last)

    def on_abandoned(self, function: str) -> None:
        self.ask_to_go(f"task {function} ignores its time limit")

    def on_stuck(self, threads: int) -> None:
        self.fairness.reconsider()  # it may be full now
        self.ask_to_go(f"{threads} threads of blocking tasks are stuck")

    def beat(self) -> None:
        """Tell the master that the loop turns, and check the limits now and then."""
        self.stats.beat(*self.service.oldest())
        now = monotonic()
        if now < self.next_check or self.signalled.is_set():
            return
        self.next_check = now + CHECK_SECONDS
        if not self.is_told_ready:
            self.is_told_ready = self.tell_master("ready")
        self.fairness.refresh()
        if self.settings.idle_timeout:
            self.service.close_idle(self.settings.idle_timeout)
        if self.max_tasks and self.stats.done >= self.max_tasks:
            self.ask_to_go(f"max_tasks: {self.stats.done} tasks done")
        elif self.max_rss and (rss := _resident_bytes()) > self.max_rss:
            self.ask_to_go(f"max_rss_mb: {rss / 1048576:.0f} MB resident")

    def ask_to_go(self, reason: str) -> None:
        """Ask for a replacement; the master drains us when that is up."""
        if not self.asked_to_go:
            self.asked_to_go = self.tell_master("recycle", reason=reason)

    def tell_master(self, event: str, **details: Any) -> bool:
        """Send a message without waiting; False if the master takes none now, or has gone."""
        message = {"event": event, "row": self.row, "pid": os.getpid(), **details}
        try:
            self.events.send(ujson.dumps(message).encode(), socket.MSG_DONTWAIT)
        except OSError:
            log.debug("cannot tell the master of %r", event)
            return False
        return True


def _with_jitter(limit: float) -> float:
    """Up to a tenth less, so that workers of one age are not recycled together."""
    return limit and limit * random.uniform(0.9, 1.0)


def _resident_bytes() -> int:
    return resident_bytes(os.getpid())
