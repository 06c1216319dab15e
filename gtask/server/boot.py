"""A worker process from its fork to its exit: boot, serve, beat, drain.

Talks to the master by the scoreboard and by messages on `events`; listens to TERM (drain), HUP
(a TERM that follows is a reload's), INT (stop now) and USR2 (report connections).
"""

from __future__ import annotations

import faulthandler
import ipaddress
import json
import logging
import os
import random
import resource
import signal
import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from gevent.event import Event

from ..logs import log_stream
from ..master.scoreboard import Scoreboard, State
from ..net.connection import format_address
from ..net.reactor import current_reactor
from ..net.timer import Timer
from ..protocols.tls import TlsFilter
from .acceptor import Acceptor
from .callbacks import CallbackService
from .gauge import Gauge
from .load import describe
from .service import TaskService

if TYPE_CHECKING:
    from ..worker import Worker

log = logging.getLogger(__name__)

BEAT_SECONDS = 0.25
LOOK_SECONDS = 1.0  # between looks at limits: memory, idle connections, new siblings
SWEEP_SECONDS = 0.05  # while draining
REPORT_CONNECTIONS = 50  # a message to the master
FAILED_TO_BOOT = 1


@dataclass(frozen=True)
class Place:
    """What the master gives a worker process.

    Attributes:
        worker_id: 0 to count - 1; a replacement gets its predecessor's.
        row: the process's row on the scoreboard.
        scoreboard: that of its service and generation.
        listener: the master's listening socket, non-blocking.
        events: where messages to the master go, a SOCK_SEQPACKET socket.
        stop_timeout: seconds a drain may take.
    """

    worker_id: int
    row: int
    scoreboard: Scoreboard
    listener: socket.socket
    events: socket.socket
    stop_timeout: float


def run_worker(worker: Worker, place: Place) -> int:
    """Be a worker process until told to stop; returns the exit code."""
    return _Process(worker, place).run()


class _Process:
    def __init__(self, worker: Worker, place: Place) -> None:
        self.worker = worker
        self.settings = worker.checked or worker.settings()
        self.place = place
        self.gauge = Gauge(place.scoreboard, place.row)
        self.gauge.boot(os.getpid())
        worker.id = place.worker_id
        faulthandler.enable(log_stream())
        _raise_descriptor_limit()
        self.reactor = current_reactor()
        self.loop = self.reactor.loop
        self.told = Event()  # a signal came
        self.is_hurried = False
        self.is_reloading = False
        self.watchers: list[Any] = []
        self.service: Any = None
        self.acceptor: Any = None
        self.asked_to_go = False
        self.max_tasks = _with_jitter(self.settings.max_tasks)
        self.max_rss = _with_jitter(self.settings.max_rss_mb) * 1024 * 1024
        self.next_look = monotonic() + LOOK_SECONDS

    # -- the three parts of its life ----------------------------------------------------------

    def run(self) -> int:
        try:
            self.boot()
        except BaseException as error:  # the edge: on_worker_start is user code
            log.error(
                "worker %s %d cannot start", self.worker.name, self.place.worker_id, exc_info=error
            )
            self.tell("failed", reason=describe(error))
            return FAILED_TO_BOOT
        self.told.wait()
        if self.is_reloading:
            self.call("on_worker_reload")
        code = self.drain()
        self.farewell()
        return code

    def boot(self) -> None:
        """Listen to signals, call `on_worker_start`, accept."""
        for number, action in (
            (signal.SIGTERM, self.on_term),
            (signal.SIGINT, self.on_int),
            (signal.SIGHUP, self.on_hup),
            (signal.SIGUSR2, self.on_report),
        ):
            watcher = self.loop.signal(number)
            watcher.start(action)
            self.watchers.append(watcher)
        for number in (
            signal.SIGUSR1,
            signal.SIGTTIN,
            signal.SIGTTOU,
            signal.SIGQUIT,
        ):
            signal.signal(number, signal.SIG_IGN)
        beat = self.loop.timer(BEAT_SECONDS, BEAT_SECONDS)
        beat.start(self.beat)
        self.watchers.append(beat)
        if self.worker.on_worker_start is not None:
            self.worker.on_worker_start(self.worker)
        self.listen()
        self.gauge.state(State.READY)
        if self.acceptor is not None:
            self.acceptor.refresh()
        self.tell("ready")

    def listen(self) -> None:
        worker, settings = self.worker, self.settings
        self.tls = server_context(settings.certfile, settings.keyfile, settings.cafile)
        self.networks = settings.allow
        if settings.listen.protocol == "websocket":
            from .websocket import WebSocketService  # not for text services: it takes memory

            self.service = WebSocketService(
                worker,
                self.reactor,
                self.gauge,
                address=self.place.listener.getsockname(),
                is_tls=self.tls is not None,
            )
        elif worker.served:
            self.service = TaskService(
                worker.served,
                self.reactor,
                self.gauge,
                concurrency=settings.concurrency,
                task_timeout=settings.task_timeout,
                max_frame_bytes=settings.max_frame_bytes,
                max_batch=settings.max_batch,
                max_send_buffer_bytes=settings.max_send_buffer_bytes,
            )
        else:
            self.service = CallbackService(worker, self.reactor, self.gauge)
        self.acceptor = Acceptor(
            self.place.listener,
            self.accept,
            self.gauge,
            self.is_full,
            siblings=settings.count,
            strict=bool(worker.served) and settings.concurrency == 1,
        )
        self.service.on_full = self.acceptor.reconsider
        self.service.on_abandoned = self.on_abandoned
        self.acceptor.start()

    def drain(self) -> int:
        """Accept no more, let running work end; returns 0, or 1 if it was cut off."""
        deadline = monotonic() + self.place.stop_timeout
        self.acceptor.finish()
        # Told only now: the master may then have the kernel refuse what is still in the queue.
        self.gauge.state(State.DRAINING)
        if not self.is_hurried:
            self.service.drain()
            while not self.service.is_idle and monotonic() < deadline and not self.is_hurried:
                self.told.clear()
                self.told.wait(SWEEP_SECONDS)
                self.service.sweep()
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
            except BaseException:  # the edge to user code
                log.exception("%s failed", name)

    # -- connections --------------------------------------------------------------------------

    def is_full(self) -> bool:
        return self.service.is_full or self.gauge.connections >= self.settings.max_connections

    def accept(self, client: Any, address: Any) -> None:
        """Take up a connection, if its network may connect; runs in the hub."""
        if self.networks and not self.is_allowed(address):
            self.gauge.refused()
            log.debug("refused %s", format_address(address))
            client.close()
            return
        self.gauge.accepted()
        tls = TlsFilter(self.tls, server_side=True) if self.tls is not None else None
        self.service.accept(client, address, tls)

    def is_allowed(self, address: Any) -> bool:
        if not isinstance(address, tuple):
            return True  # a unix socket: its mode says who may connect
        host = ipaddress.ip_address(address[0].partition("%")[0])
        host = getattr(host, "ipv4_mapped", None) or host
        return any(host in network for network in self.networks)

    # -- signals and timers, in the hub -------------------------------------------------------

    def on_term(self) -> None:
        self.told.set()

    def on_hup(self) -> None:
        self.is_reloading = True  # the master sends TERM right after it

    def on_int(self) -> None:
        self.is_hurried = True
        self.told.set()

    def on_report(self) -> None:
        report = self.service.report() if self.service is not None else []
        for start in range(0, max(1, len(report)), REPORT_CONNECTIONS):
            part = report[start : start + REPORT_CONNECTIONS]
            last = start + REPORT_CONNECTIONS >= len(report)
            self.tell("connections", connections=part, last=last)

    def on_abandoned(self, function: str) -> None:
        self.ask_to_go(f"task {function} ignores its time limit")

    def beat(self) -> None:
        """Tell the master that the loop turns, and look at the limits now and then."""
        oldest, since = self.service.oldest() if self.service is not None else (0, 0.0)
        self.gauge.beat(oldest, since)
        now = monotonic()
        if now < self.next_look or self.told.is_set() or self.service is None:
            return
        self.next_look = now + LOOK_SECONDS
        if self.acceptor is not None:
            self.acceptor.refresh()
            idle_timeout = self.settings.idle_timeout
            if idle_timeout:
                self.service.sweep(idle_timeout)
        if self.max_tasks and self.gauge.done >= self.max_tasks:
            self.ask_to_go(f"max_tasks: {self.gauge.done} tasks done")
        elif self.max_rss and (rss := _resident_bytes()) > self.max_rss:
            self.ask_to_go(f"max_rss_mb: {rss / 1048576:.0f} MB resident")

    def ask_to_go(self, reason: str) -> None:
        """Ask for a replacement; the master drains us when that is up."""
        if not self.asked_to_go:
            self.asked_to_go = True
            self.tell("recycle", reason=reason)

    def tell(self, event: str, **details: Any) -> None:
        message = {"event": event, "row": self.place.row, "pid": os.getpid(), **details}
        try:
            self.place.events.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)
        except OSError:  # the master has gone, and so shall we, soon
            log.debug("cannot tell the master of %r", event)


def server_context(certfile: str, keyfile: str, cafile: str) -> ssl.SSLContext | None:
    """The TLS context of a service, or None; with `cafile`, clients need a certificate."""
    if not certfile:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=cafile or None)
    context.load_cert_chain(certfile, keyfile or None)
    if cafile:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _with_jitter(limit: float) -> float:
    """Up to a tenth less, so that workers of one age are not recycled together."""
    return limit * random.uniform(0.9, 1.0)


def _resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
