"""The process that workers are forked from: all is imported and made, and nothing runs.

Forked by the master for each generation of code. A worker is forked twice, so that it becomes the
master's own child: the process in between reports its id and ends, and the worker waits for that.

The mold makes the workers' hub, but never switches to it: a hub that runs has greenlets, which
would run in each worker.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import grp
import importlib
import logging
import os
import pwd
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import ujson

from .. import native
from ..errors import ConfigError
from ..generation import Generation
from ..logs import log_stream
from ..process import die_with, set_title
from .forks import Forker

if TYPE_CHECKING:
    from ..worker import Worker
    from .boot import WorkerProcess

log = logging.getLogger(__name__)

FAILED = 1
BAD_CONFIGURATION = 78
MAX_MESSAGE_BYTES = 65536

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
    _share_memory()
    _tell(generation, event="loaded", functions=functions)
    _Mold(generation, forker, processes).serve()
    return 0


def _ignore_signals() -> None:
    for number in IGNORED:
        native.signal(number, signal.SIG_IGN)


def _load(
    generation: Generation, workers: Iterable[Worker] | None, forker: Forker
) -> dict[str, Worker]:
    _patch()
    # Imported by every gevent hub, and 3 MB private to each worker if that came after the fork.
    import pprint  # noqa: F401

    import gevent.libev.corecext
    import gevent.threadpool  # noqa: F401

    from . import boot  # noqa: F401
    from .load import load_workers

    faulthandler.enable(log_stream())
    # A source file changed within the second of its last compilation would pass for unchanged.
    sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
    importlib.invalidate_caches()
    try:
        if workers is None:
            with forker:
                loaded = load_workers(generation.settings)
        else:
            loaded = {worker.name: worker for worker in workers}
            for worker in loaded.values():
                worker.load()
    finally:
        sys.dont_write_bytecode = before
    sys.stdout.flush()  # or each worker writes it again
    return loaded


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


def _rehearse() -> None:
    from gevent._hub_local import get_hub_if_exists

    from .rehearsal import rehearse

    if get_hub_if_exists() is not None:
        return  # the user's modules have made one, which the workers shall have as it is
    try:
        rehearse()
    except Exception:  # it saves memory, and no more
        log.warning("the rehearsal of a worker has failed", exc_info=True)
    _ignore_signals()


def _raise_descriptor_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _share_memory() -> None:
    """Keep pages shared that the workers would copy just by looking at what is on them."""
    gc.disable()
    gc.collect()
    gc.freeze()


def _patch() -> None:
    from gevent import monkey
    from gevent._hub_local import get_hub_if_exists

    if (hub := get_hub_if_exists()) is not None:
        hub.destroy(destroy_loop=True)  # a script's own: its greenlets shall not run in each worker
    if not monkey.is_module_patched("socket"):  # else a script has done it, its own way
        monkey.patch_all(os=False, signal=False)


def _report_failure(generation: Generation, error: BaseException) -> int:
    from .load import describe

    log.debug("the code does not load", exc_info=error)
    is_ours = isinstance(error, ConfigError)
    problems = error.problems if isinstance(error, ConfigError) else [describe(error)]
    code = BAD_CONFIGURATION if is_ours else FAILED
    _tell(generation, event="failed", problems=problems, code=code)
    return code


class _Mold:
    """Forks workers from what has been loaded and made."""

    def __init__(
        self, generation: Generation, forker: Forker, processes: dict[str, WorkerProcess]
    ) -> None:
        self.generation = generation
        self.fork = forker.fork
        self.settle = forker.settle
        self.processes = processes

    def serve(self) -> None:
        """Do what the master asks, until it closes the channel."""
        while requests := self._requests():
            try:
                between = self.fork()
            except OSError as error:
                for request in requests:
                    self._report_no_fork(request, error)
                continue
            if between == 0:
                self._be_between(requests)
            native.waitpid(between, 0)

    def _requests(self) -> list[dict[str, Any]]:
        """All that the master has asked for; waits for something."""
        channel = self.generation.channel
        messages = [channel.recv(MAX_MESSAGE_BYTES)]
        with contextlib.suppress(BlockingIOError):
            while messages[-1]:
                messages.append(channel.recv(MAX_MESSAGE_BYTES, socket.MSG_DONTWAIT))
        return [ujson.loads(message) for message in messages if message]

    def _be_between(self, requests: list[dict[str, Any]]) -> None:
        """Fork the workers and end, which makes them the master's children.

        All are forked before anything else is done, since what is done in between two forks is
        written to pages that the next worker does not share with the one before.
        """
        try:
            between = os.getpid()
            forked: list[int | OSError] = []
            for request in requests:
                try:
                    pid = self.fork()
                except OSError as error:
                    forked.append(error)
                    continue
                if pid == 0:
                    self._be_worker(request, between)
                forked.append(pid)
            for request, outcome in zip(requests, forked, strict=True):
                if isinstance(outcome, OSError):
                    self._report_no_fork(request, outcome)
                else:
                    where = {"service": request["service"], "row": request["row"]}
                    _tell(self.generation, event="spawned", **where, pid=outcome)
        finally:
            os._exit(0)

    def _report_no_fork(self, request: dict[str, Any], error: OSError) -> None:
        where = {"service": request["service"], "row": request["row"]}
        _tell(self.generation, event="failed", **where, reason=f"cannot fork: {error.strerror}")

    def _be_worker(self, request: dict[str, Any], between: int) -> None:
        code = FAILED
        try:
            self.settle()
            _await_end(between)
            process = self.processes[request["service"]]
            _settle(self.generation, process, request["id"])
            code = process.run(request["id"], request["row"])
        except BaseException as error:  # the last edge: nothing may return into the mold's code
            log.exception("worker %s %s has failed", request["service"], request["id"])
            reason = f"{type(error).__name__}: {error}"
            _tell(self.generation, event="failed", pid=os.getpid(), reason=reason)
        finally:
            logging.shutdown()
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
            os._exit(code)


def _await_end(between: int) -> None:
    """Wait until the process in between has ended, and we are the master's child."""
    while os.getppid() == between:
        native.sleep(0.001)


def _settle(generation: Generation, process: WorkerProcess, worker_id: int) -> None:
    """Become a child of the master's, with the service's title, signals and user."""
    settings = process.settings
    native.signal(signal.SIGINT, signal.SIG_DFL)  # until the worker listens to it; as TERM is
    die_with(generation.master)
    set_title(process.title % worker_id)
    for name, listener in generation.listeners.items():
        if name != settings.name:
            listener.close()
    if settings.user or settings.group:
        _drop_privileges(settings.user, settings.group)
        die_with(generation.master)
    gc.enable()


def _drop_privileges(user: str, group: str) -> None:
    """Become `user` and `group`, for good.

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


def _tell(generation: Generation, **message: Any) -> None:
    with contextlib.suppress(OSError):  # the master has gone, and so shall we
        generation.channel.send(ujson.dumps(message).encode())
