"""The process that workers are forked from: it loads all once, and then forks what is asked for.

Forked by the master for each generation of code. A worker is forked twice, so that it becomes the
master's own child: the process in between reports its id and ends, and the worker waits for that.

The mold makes the workers' hub, but never switches to it: a hub that runs has greenlets, which
would run in each worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import ujson

from .. import native
from ..errors import ConfigError
from ..generation import Generation
from ..logs import log_stream
from ..process import die_with, set_title
from .child import become_child_of_master, become_worker_of
from .forks import Forker

if TYPE_CHECKING:
    from ..worker import Worker
    from .boot import WorkerProcess

log = logging.getLogger(__name__)

FAILED = 1
MAX_REQUEST_BYTES = 65536

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

    Args:
        workers: what a script declared; without it, the settings say what to import.

    Returns:
        The exit code.
    """
    _ignore_signals()
    die_with(generation.master)
    set_title(f"gtask: mold {generation.number}")
    forker = Forker()
    try:
        loaded = _load(generation, workers, forker)
        processes = _make_processes(generation, loaded)
    except BaseException as error:  # the edge to user code: a module may even call sys.exit
        return _report_failure(generation, error)
    functions = {name: worker.function_names() for name, worker in loaded.items()}
    _keep_shared()
    _tell(generation, event="loaded", functions=functions)
    _Mold(generation, forker, processes).serve()
    return 0


def _ignore_signals() -> None:
    for number in IGNORED:
        native.signal(number, signal.SIG_IGN)


def _tell(generation: Generation, **message: Any) -> None:
    with contextlib.suppress(OSError):  # the master has gone, and so shall we
        generation.channel.send(ujson.dumps(message).encode())


def _report_failure(generation: Generation, error: BaseException) -> int:
    from .load import describe

    log.debug("the code does not load", exc_info=error)
    problems, code = [describe(error)], FAILED
    if isinstance(error, ConfigError):
        problems, code = error.problems, os.EX_CONFIG
    _tell(generation, event="failed", problems=problems, code=code)
    return code


# -- loading: what is done once for all workers ---------------------------------------------------


def _load(
    generation: Generation, workers: Iterable[Worker] | None, forker: Forker
) -> dict[str, Worker]:
    """The workers by their services' names, with everything imported."""
    _patch()
    _import_early()
    from ..patches.early import rebind_early_names
    from .load import load_workers

    faulthandler.enable(log_stream())
    with _fresh_sources():
        if workers is None:
            with forker:
                loaded = load_workers(generation.settings)
        else:
            rebind_early_names()
            loaded = {worker.name: worker for worker in workers}
            for worker in loaded.values():
                worker.load()
    sys.stdout.flush()  # or each worker writes it again
    return loaded


def _patch() -> None:
    from gevent._hub_local import get_hub_if_exists

    from ..patches import patch_all

    if (hub := get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)  # a script's own: its greenlets shall not run in each worker
    patch_all()


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


def _make_processes(generation: Generation, loaded: dict[str, Worker]) -> dict[str, WorkerProcess]:
    """What the workers of each service are forked from; nothing when the code is only checked."""
    from .boot import WorkerProcess
    from .load import load_certificates

    certificates = load_certificates(generation.settings)
    _raise_descriptor_limit()
    if generation.listeners and any(worker.served for worker in loaded.values()):
        _rehearse()
    return {
        settings.name: WorkerProcess(
            loaded[settings.name],
            settings,
            generation.listeners[settings.name],
            generation.scoreboards[settings.name],
            generation.channel,
            generation.settings.stop_timeout,
            certificates[settings.name],
        )
        for settings in generation.settings.services
        if settings.name in generation.listeners
    }


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
    """Have no collection of garbage write to the pages that the workers share."""
    gc.disable()
    gc.collect()
    gc.freeze()


# -- serving: forks, as the master asks -----------------------------------------------------------


class _Mold:
    """Forks workers from what has been loaded and made."""

    def __init__(
        self, generation: Generation, forker: Forker, processes: dict[str, WorkerProcess]
    ) -> None:
        self._generation = generation
        self._fork = forker.fork
        self._processes = processes

    def serve(self) -> None:
        """Do what the master asks, until it closes the channel."""
        while requests := self._requests():
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
        channel = self._generation.channel
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
            _tell(self._generation, event="failed", **where, reason=reason)
        else:
            _tell(self._generation, event="spawned", **where, pid=outcome)

    def _be_worker(self, request: dict[str, Any], between: int) -> NoReturn:
        code = FAILED
        try:
            become_child_of_master(self._generation, between)
            process = self._processes[request["service"]]
            title = process.title % request["id"]
            become_worker_of(process.settings, self._generation, title)
            code = process.run(request["id"], request["row"])
        except BaseException as error:  # the last edge: nothing may return into the mold's code
            log.exception("worker %s %s has failed", request["service"], request["id"])
            reason = f"{type(error).__name__}: {error}"
            _tell(self._generation, event="failed", pid=os.getpid(), reason=reason)
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)
