"""The process that workers are forked from: it loads all once, and then forks what is asked for.

Forked by the master for each generation of code. A worker is forked twice, so that it becomes the
master's own child: the process in between reports its id and ends, and the worker waits for that.

The mold makes the workers' hub, but never switches to it: a hub that runs has greenlets, which
would run in each worker.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import math
import os
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, NoReturn

import ujson

from .. import native
from ..errors import ConfigError
from ..generation import Generation
from ..logs.hooks import install_hooks
from ..logs.loggers import get_logger
from ..logs.setup import look_after_log
from ..process import die_with, set_title
from .bootlimit import BootLimit
from .child import NotPermitted, become_child_of_master, become_worker_of, take_user
from .farewell import keep_finalizers, limit_farewell, run_exit_functions
from .forks import Forker
from .front import Front
from .messenger import Messenger
from .part import FAILED, Part
from .surroundings import prepare_surroundings

if TYPE_CHECKING:
    import ssl

    from ..config import Settings
    from ..worker import Worker
    from .boot import WorkerProcess

log = get_logger(__name__)

REHEARSAL_DESCRIPTORS = 64  # what it may open, several times over
MAX_REQUEST_BYTES = 65536
LOG_SECONDS = 1.0  # what the end of a worker may wait for handlers of its log
LEAST_LOG_SECONDS = 0.1  # of these, where the drain has used its time up

# What a terminal or a manager may send to the whole tree; it is the master's affair.
IGNORED = (
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


def run_mold(generation: Generation, workers: Iterable[Worker] | None = None) -> int:
    """Load the user's code, then fork workers as the master asks, until it closes the channel.

    Nothing of the user's is imported before this process has the services' user and group. Where
    services have different ones, each has a mold of its own, behind this process.

    Args:
        workers: what a script declared; without it, the settings say what to import.

    Returns:
        The exit code.
    """
    install_hooks()
    _ignore_signals()
    die_with(generation.master)
    set_title(f"gtask: mold {generation.number}")
    owners = {(each.user, each.group) for each in generation.settings.services}
    if len(owners) > 1:
        return Front(generation, owners, lambda part: _run(part, workers)).run()
    return _run(Part(generation, generation.channel, generation.master), workers)


def _run(part: Part, workers: Iterable[Worker] | None) -> int:
    """Be the mold of these services."""
    forker = Forker()
    limit = BootLimit(
        part.generation.settings.boot_timeout, lambda why: part.tell_not_loaded([why])
    )
    limit.start()
    try:
        certificates = _prepare(part)
        loaded = _load(part.generation.settings, workers, forker)
        processes = _make_processes(part.generation, loaded, certificates)
    except BaseException as error:  # the edge to user code: a module may even call sys.exit
        return _report_failure(part, error)
    limit.stop()
    _keep_shared()
    part.tell_loaded({name: worker.function_names() for name, worker in loaded.items()})
    _Mold(part, forker, processes).serve()
    return 0


def _ignore_signals() -> None:
    for number in IGNORED:
        native.signal(number, signal.SIG_IGN)


def _report_failure(part: Part, error: BaseException) -> int:
    from .load import describe

    problems, code = [describe(error)], FAILED
    if isinstance(error, ConfigError):
        problems, code = error.problems, os.EX_CONFIG
    elif isinstance(error, NotPermitted):
        names = ", ".join(each.name for each in part.generation.settings.services)
        problems = [f"{names} cannot start: ConfigError: {error}"]
    part.tell_not_loaded(problems, code)
    log.debug("the code does not load", exc_info=error)
    return code


# -- loading: what is done once for all workers ---------------------------------------------------


def _prepare(part: Part) -> dict[str, ssl.SSLContext | None]:
    """Import what is gtask's, read the certificates, which root alone may read, perhaps, and then
    become the services' user; returns the certificates."""
    _patch()
    _import_early()
    from .load import load_certificates

    settings = part.generation.settings
    if part.generation.stacks is not None:
        part.generation.stacks.catch_mold()
    certificates = load_certificates(settings)
    owner = settings.services[0]
    take_user(owner.user, owner.group, part.parent)
    return certificates


def _load(
    settings: Settings, workers: Iterable[Worker] | None, forker: Forker
) -> dict[str, Worker]:
    """The workers by their services' names, with everything imported."""
    from ..patches.early import rebind_early_names
    from .load import load_script_workers, load_workers

    with _fresh_sources():
        if workers is None:
            with forker:
                loaded = load_workers(settings)
        else:
            rebind_early_names()
            names = {each.name for each in settings.services}
            loaded = load_script_workers(settings, [one for one in workers if one.name in names])
    sys.stdout.flush()  # or each worker writes it again
    return loaded


def _patch() -> None:
    from gevent._hub_local import get_hub_if_exists

    from ..patches import patch_all

    if (hub := get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)  # a script's own: its greenlets shall not run in each worker
    patch_all()
    from .hub import watch_hubs
    from .signals import share_signals
    from .thread_logs import make_threads_log

    share_signals()
    watch_hubs()
    make_threads_log()


def _import_early() -> None:
    """What a worker or its gevent hub would import: 3 MB of each worker's own, after the fork."""
    import pprint  # noqa: F401

    import gevent.libev.corecext
    import gevent.threadpool  # noqa: F401

    from . import boot  # noqa: F401


@contextlib.contextmanager
def _fresh_sources() -> Iterator[None]:
    """Import modules as their sources are now, and write no bytecode of them.

    A .pyc file knows its source by the second in which that was written, so one that is made of a
    file just before that is changed again would pass for current at the next reload.
    """
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _make_processes(
    generation: Generation,
    loaded: dict[str, Worker],
    certificates: dict[str, ssl.SSLContext | None],
) -> dict[str, WorkerProcess]:
    """What the workers of each service are forked from; nothing when the code is only checked."""
    from .boot import WorkerProcess

    descriptors = prepare_surroundings(generation.settings)
    can_rehearse = generation.listeners and descriptors >= REHEARSAL_DESCRIPTORS
    if can_rehearse and any(worker.served for worker in loaded.values()):
        _rehearse()
    return {
        settings.name: WorkerProcess(
            loaded[settings.name],
            settings,
            next(iter(generation.listeners.get(settings.name, ())), None),
            generation.scoreboards[settings.name],
            generation.events,
            generation.settings.stop_timeout,
            certificates[settings.name],
            generation.settings.boot_timeout,
            generation.listeners.get(settings.name, ())[1:],
            generation.lobbies.get(settings.name),
        )
        for settings in generation.settings.services
        if generation.number  # else the code is only checked
    }


def _rehearse() -> None:
    from gevent._hub_local import get_hub_if_exists

    from .rehearsal import rehearse

    if get_hub_if_exists() is not None:
        return  # the user's modules have made one, which the workers shall have as it is
    try:
        rehearse()
    except Exception:  # it saves memory, and no more
        log.warning("the rehearsal of a worker has failed", exc_info=True)
    _ignore_signals()  # the rehearsed worker has listened to them


def _keep_shared() -> None:
    """Have no collection of garbage write to the pages that the workers share, nor the end of one
    worker remove what all have."""
    keep_finalizers()
    gc.disable()
    gc.collect()
    gc.freeze()


# -- serving: forks, as the master asks -----------------------------------------------------------


class _Mold:
    """Forks workers from what has been loaded and made."""

    def __init__(self, part: Part, forker: Forker, processes: dict[str, WorkerProcess]) -> None:
        self._part = part
        self._generation = part.generation
        self._fork = forker.fork
        self._processes = processes
        # What is said there is the mold's word. Closed by their numbers, as `socket.close` would
        # take another 40 kB of each worker's own memory.
        self._own_fds = {part.orders.fileno(), part.generation.channel.fileno()}

    def serve(self) -> None:
        """Do what the master asks, until it closes the channel."""
        while requests := self._requests():
            requests = [request for request in requests if request["event"] == "spawn"]
            look_after_log()
            if not requests:
                continue
            try:
                between = self._fork()
            except OSError as error:
                for request in requests:
                    self._report(request, error)
                continue
            if between == 0:
                self._be_between(requests)
            native.waitpid(between, 0)

    def _requests(self) -> list[dict[str, Any]]:
        """All that the master has asked for; waits for something."""
        channel = self._part.orders
        messages = [channel.recv(MAX_REQUEST_BYTES)]
        with contextlib.suppress(BlockingIOError):
            while messages[-1]:
                messages.append(channel.recv(MAX_REQUEST_BYTES, socket.MSG_DONTWAIT))
        return [ujson.loads(message) for message in messages if message]

    def _be_between(self, requests: list[dict[str, Any]]) -> NoReturn:
        """Fork the workers and end, which makes them the master's children.

        All are forked before anything else is done, since what is done in between two forks is
        written to pages that the next worker does not share with the one before.
        """
        try:
            between = os.getpid()
            outcomes = [self._fork_worker(request, between) for request in requests]
            for request, outcome in zip(requests, outcomes, strict=True):
                self._report(request, outcome)
        finally:
            os._exit(0)

    def _fork_worker(self, request: dict[str, Any], between: int) -> int | OSError:
        """The worker's process id, or why there is none; in the worker it does not return."""
        try:
            pid = self._fork()
        except OSError as error:
            return error
        if pid == 0:
            self._be_worker(request, between)
        return pid

    def _report(self, request: dict[str, Any], outcome: int | OSError) -> None:
        where = {"service": request["service"], "row": request["row"]}
        if isinstance(outcome, OSError):
            reason = f"cannot fork: {outcome.strerror}"
            self._part.report(event="failed", **where, reason=reason)
        else:
            self._part.report(event="spawned", **where, pid=outcome)

    def _be_worker(self, request: dict[str, Any], between: int) -> NoReturn:
        from ..net.log_queue import finish_log, flush_queue, take_all
        from .thread_logs import use_native_locks

        code, service, row = FAILED, request["service"], request["row"]
        ended_by = math.inf
        try:
            if self._generation.stacks is not None:
                self._generation.stacks.catch(service, row)
            become_child_of_master(self._generation, between)
            for fd in self._own_fds:
                os.close(fd)
            process = self._processes[service]
            take_all(process.reactor.hub)
            use_native_locks()
            title = f"gtask: {service} {request['id']} {process.settings.listen}"
            become_worker_of(process.settings, self._generation, title)
            code = process.run(
                request["id"],
                row,
                lambda code: limit_farewell(process.ended_by - monotonic(), code),
            )
            ended_by = process.ended_by
            # Now, as `atexit` closes the log's handlers.
            flush_queue(min(LOG_SECONDS, max(0.0, ended_by - monotonic()) / 2))
            run_exit_functions(process.patience())
        except BaseException as error:  # the last edge: nothing may return into the mold's code
            messenger = Messenger(self._generation.events)
            messenger.row = row
            messenger.tell_at_last("failed", reason=f"{type(error).__name__}: {error}")
            log.exception("worker %s %s has failed", service, request["id"])
        finally:
            finish_log(min(LOG_SECONDS, max(LEAST_LOG_SECONDS, ended_by - monotonic())))
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)
