"""The process that workers are forked from: it has everything imported, and never starts a hub.

Forked by the master for each generation of code. A worker is forked twice, so that it becomes the
master's own child: the process in between reports its id and ends, and the worker waits for that.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import grp
import importlib
import json
import logging
import os
import pwd
import select
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .. import native
from ..errors import ConfigError
from ..generation import Generation
from ..logs import log_stream
from ..process import die_with, set_title

if TYPE_CHECKING:
    from ..config import ServiceSettings
    from ..worker import Worker

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
    for number in IGNORED:
        native.signal(number, signal.SIG_IGN)
    die_with(generation.master)
    set_title(f"gtask: mold {generation.number}")
    try:
        loaded = _load(generation, workers)
    except BaseException as error:  # the edge to user code: a module may even call sys.exit
        return _report_failure(generation, error)
    functions = {name: worker.function_names() for name, worker in loaded.items()}
    _tell(generation, event="loaded", functions=functions)
    while message := generation.channel.recv(MAX_MESSAGE_BYTES):
        request = json.loads(message)
        _spawn(generation, loaded[request["service"]], request)
    return 0


def _load(generation: Generation, workers: Iterable[Worker] | None) -> dict[str, Worker]:
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
            loaded = load_workers(generation.settings)
        else:
            loaded = {worker.name: worker for worker in workers}
            for worker in loaded.values():
                worker.load()
        if any(str(worker.listen).lower().startswith("websocket") for worker in loaded.values()):
            from . import websocket  # noqa: F401 - pywsgi and all that, once and not per worker
    finally:
        sys.dont_write_bytecode = before
    sys.stdout.flush()  # or each worker writes it again
    _share_memory()
    return loaded


def _share_memory() -> None:
    """Keep pages shared that the workers would copy just by looking at what is on them."""
    gc.disable()
    gc.collect()
    gc.freeze()
    # Each entry of the interpreter's method cache that a worker replaces gives up the name of a
    # method nobody calls any more, and so writes to one more page.
    sys._clear_type_cache()


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


def _spawn(generation: Generation, worker: Worker, request: dict[str, Any]) -> None:
    try:
        between = native.fork()
    except OSError as error:
        _report_no_fork(generation, request, error)
        return
    if between == 0:
        _be_between(generation, worker, request)
    native.waitpid(between, 0)


def _be_between(generation: Generation, worker: Worker, request: dict[str, Any]) -> None:
    """Fork the worker and end, which makes it the master's child."""
    try:
        between = os.getpid()
        pid = native.fork()
        if pid:
            _tell(
                generation, event="spawned", service=request["service"], row=request["row"], pid=pid
            )
        else:
            _be_worker(generation, worker, request, between)
    except OSError as error:
        _report_no_fork(generation, request, error)
    finally:
        os._exit(0)


def _report_no_fork(generation: Generation, request: dict[str, Any], error: OSError) -> None:
    where = {"service": request["service"], "row": request["row"]}
    _tell(generation, event="failed", **where, reason=f"cannot fork: {error.strerror}")


def _be_worker(
    generation: Generation, worker: Worker, request: dict[str, Any], between: int
) -> None:
    code = FAILED
    try:
        settings = next(
            each for each in generation.settings.services if each.name == request["service"]
        )
        _await_end(between)
        _settle(generation, settings, request["id"])
        from .boot import Place, run_worker

        place = Place(
            request["id"],
            request["row"],
            generation.scoreboards[settings.name],
            generation.listeners[settings.name],
            generation.channel,
            generation.settings.stop_timeout,
        )
        code = run_worker(worker, place)
    except BaseException as error:  # the last edge: nothing may return into the mold's code
        log.exception("worker %s %s has failed", request["service"], request["id"])
        _tell(
            generation, event="failed", pid=os.getpid(), reason=f"{type(error).__name__}: {error}"
        )
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _await_end(pid: int) -> None:
    """Wait until the process in between has ended, and we are the master's child."""
    try:
        ended = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = native.poll()
    poll.register(ended, select.POLLIN)
    poll.poll()
    os.close(ended)


def _settle(generation: Generation, settings: ServiceSettings, worker_id: int) -> None:
    """Become a child of the master's, with the service's title, signals and user."""
    for number in (*IGNORED, signal.SIGTERM):
        native.signal(number, signal.SIG_DFL)
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        native.signal(number, signal.SIG_IGN)  # until the worker listens to them
    die_with(generation.master)
    set_title(f"gtask: {settings.name} {worker_id} {settings.listen}")
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
        generation.channel.send(json.dumps(message).encode())
