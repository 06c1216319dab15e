"""The user's code: from settings to `Worker` objects, with everything imported; and the certificates.

Runs in a mold, with everything monkey-patched. What is wrong is told all at once, by file,
section and key, with the line of the user's code it happened in.
"""

from __future__ import annotations

import importlib
import os
import ssl
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from types import ModuleType
from typing import TypeVar

from ..callbacks import CONNECTION_CALLBACKS, WORKER_CALLBACKS
from ..config import ServiceSettings, Settings
from ..errors import ConfigError
from ..worker import Worker

CALLBACKS = (*WORKER_CALLBACKS, *CONNECTION_CALLBACKS)
BESIDE_CALLBACKS = ("application", "choose_subprotocol")  # what else a handler may define

T = TypeVar("T")


def load_workers(settings: Settings) -> dict[str, Worker]:
    """A `Worker` for each service, by name, its tasks and handlers imported.

    Raises:
        ConfigError: all that is wrong.
    """
    _import_first(*settings.python_path, "")
    return _of_each(settings, _worker)


def load_script_workers(settings: Settings, workers: Iterable[Worker]) -> dict[str, Worker]:
    """The workers that a script has declared, by name, with what their settings name imported.

    Raises:
        ConfigError: all that is wrong.
    """
    _import_first(*settings.python_path)
    loaded = {worker.name: worker for worker in workers}
    problems: list[str] = []
    for name, worker in loaded.items():
        problems += [f"worker {name}: {problem}" for problem in _finish(worker)]
    if problems:
        raise ConfigError(problems)
    return loaded


def _import_first(*paths: str) -> None:
    """Have modules looked for in these directories, in this order, before all others.

    Where a path has links in it, what they lead to now counts for the whole generation: its workers
    import no newer release's modules, whenever they do it.
    """
    directories = list(dict.fromkeys(map(os.path.realpath, paths)))
    others = [path for path in sys.path if not path or os.path.realpath(path) not in directories]
    sys.path[:] = [*directories, *others]


def load_certificates(settings: Settings) -> dict[str, ssl.SSLContext | None]:
    """The TLS context of each service, by name; None where there is no `certfile`.

    Raises:
        ConfigError: all that is wrong.
    """
    return _of_each(settings, _context)


def _of_each(settings: Settings, make: Callable[[ServiceSettings], T]) -> dict[str, T]:
    """What `make` makes of each service, by name; the problems of all are told together."""
    made: dict[str, T] = {}
    problems: list[str] = []
    for service in settings.services:
        try:
            made[service.name] = make(service)
        except ConfigError as error:
            where = f"{settings.file or 'settings'} [worker:{service.name}]"
            problems += [f"{where} {problem}" for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return made


def _context(service: ServiceSettings) -> ssl.SSLContext | None:
    if not service.certfile:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An empty password: OpenSSL would ask the terminal for that of an encrypted key.
        context.load_cert_chain(service.certfile, service.keyfile or None, password="")
    except OSError as error:  # an ssl.SSLError is one
        raise ConfigError([f"certfile: cannot use {service.certfile}: {error}"]) from None
    if service.cafile:
        try:
            context.load_verify_locations(service.cafile)
        except OSError as error:
            raise ConfigError([f"cafile: cannot use {service.cafile}: {error}"]) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _worker(service: ServiceSettings) -> Worker:
    worker = Worker(service.place, name=service.name)
    for field in fields(ServiceSettings):
        if field.name not in ("name", "listen", "stores", "tasks"):
            setattr(worker, field.name, getattr(service, field.name))
    problems: list[str] = []
    worker.tasks = [_import("tasks", name, problems) for name in service.tasks]
    if not problems:
        problems = _finish(worker)
    elif worker.handler:
        _import("handler", worker.handler, problems)
    if problems:
        raise ConfigError(problems)
    return worker


def _finish(worker: Worker) -> list[str]:
    """Find the worker's tasks and import its handler; returns what is wrong."""
    problems: list[str] = []
    try:
        worker.load()
    except ConfigError as error:
        problems += [f"tasks: {problem}" for problem in error.problems]
    handler = _import("handler", worker.handler, problems) if worker.handler else None
    if handler is not None:
        problems += _take_callbacks(worker, handler)
    return problems


def _import(key: str, name: str, problems: list[str]) -> ModuleType | None:
    """The module; None with a problem more if it cannot be had."""
    try:
        return importlib.import_module(name)
    except BaseException as error:  # the edge to user code: a module may even call sys.exit
        problems.append(f"{key}: cannot import {name}: {describe(error)}{_not_searched(error)}")
        return None


def _not_searched(error: BaseException) -> str:
    """For a module that is not found: the directories that this process's user may not read."""
    closed = [
        path for path in sys.path if os.path.isdir(path) and not os.access(path, os.R_OK | os.X_OK)
    ]
    if not isinstance(error, ModuleNotFoundError) or not closed:
        return ""
    return f"; user {os.getuid()} may not look into {', '.join(closed)}"


def _take_callbacks(worker: Worker, handler: ModuleType) -> list[str]:
    """Give `worker` what the module defines; returns what is wrong with that."""
    where = f"handler: module {handler.__name__}"
    names = WORKER_CALLBACKS if worker.tasks else CALLBACKS
    found = {name: getattr(handler, name) for name in names if hasattr(handler, name)}
    problems = [
        f"handler: {handler.__name__}.{name} is not a function"
        for name, callback in found.items()
        if callback is not None and not callable(callback)
    ]
    for name, callback in found.items():
        setattr(worker, name, callback)
    if worker.tasks:
        problems += _beside_tasks(handler)
        if not found:
            problems.append(f"{where} has none of {', '.join(WORKER_CALLBACKS)}")
        return problems
    for name in BESIDE_CALLBACKS:
        if hasattr(handler, name):
            setattr(worker, name, getattr(handler, name))
    if not found and worker.application is None:
        problems.append(f"{where} has neither on_message nor application")
    return problems


def _beside_tasks(handler: ModuleType) -> Iterator[str]:
    """What a module defines that a service with tasks never calls."""
    for name in (*CONNECTION_CALLBACKS, *BESIDE_CALLBACKS):
        if getattr(handler, name, None) is not None:
            where = f"handler: {handler.__name__}.{name}"
            yield f"{where} is never called, as tasks answer the service's calls"


def describe(error: BaseException) -> str:
    """An exception in one line, with the innermost line of code outside gtask that it came through."""
    what = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError):
        return f"{what} ({error.filename}, line {error.lineno})"
    not_theirs = ("<", os.path.dirname(__file__), os.path.dirname(importlib.__file__))
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith(not_theirs):
            return f"{what} ({frame.filename}, line {frame.lineno})"
    return what
