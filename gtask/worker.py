"""`Worker`, the user's declaration of a service.

A `Worker` holds what the user wants; it opens no socket and starts no process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from types import ModuleType
from typing import Any

from .address import Address
from .binding import TaskFunction
from .callbacks import Callback
from .config import ServiceSettings, make_service
from .tasks import find_tasks, task


class Connections(dict[int, Any]):
    """Open connections by their ids; to walk over it is to walk over those that are open then."""

    def __iter__(self) -> Iterator[int]:
        return iter(list(super().keys()))

    def keys(self) -> list[int]:  # type: ignore[override]
        return list(super().keys())

    def values(self) -> list[Any]:  # type: ignore[override]
        return list(super().values())

    def items(self) -> list[tuple[int, Any]]:  # type: ignore[override]
        return list(super().items())


class Worker:
    """A service: where it listens, how many processes it has, and what they do.

        worker = Worker("text://0.0.0.0:12345", count=100, name="TaskWorker")
        worker.on_message = lambda connection, data: connection.send(data)
        run_all(worker)

    Args:
        listen: ``text://host:port``, ``text+unix:///path`` or ``websocket://host:port``; the
            scheme's case is free. ``sqlite:///path`` beside it, or alone, for durable tasks.
        tasks: functions marked with `@task`, modules that hold some, or modules' names. A worker
            with tasks answers calls itself and has no `on_message`.
        name: for the log, `status` and the process title.
        options: any key of a ``[worker:NAME]`` section (docs/configuration.md), as an attribute
            too: ``worker.count = 100``.

    Attributes:
        id: in a worker process its number, 0 to count - 1; else -1.
        connections: in a worker process its open connections, by id; may be walked while some end.
        application: a WSGI application for the plain HTTP requests of a websocket service.
        choose_subprotocol: ``(offered names, WSGI environment) -> one of them or None``.
        on_worker_start, on_worker_stop, on_worker_reload: called with the worker.
        on_connect, on_message, on_close, on_error, on_buffer_full, on_buffer_drain: what each
            connection starts with (docs/callbacks.md).

    Raises:
        TypeError: an option that does not exist.
        ConfigError: a value that cannot be; also by `settings`, when attributes were set since.
    """

    name: str
    count: int
    handler: str
    max_frame_bytes: int
    max_send_buffer_bytes: int

    def __init__(
        self,
        listen: str | Address,
        *,
        tasks: Iterable[Callable[..., Any] | ModuleType | str] | str = (),
        name: str = "Worker",
        **options: Any,
    ) -> None:
        self.listen = listen
        self.tasks: Any = tasks
        settings = make_service(name, str(listen), **options)
        for field in fields(ServiceSettings):
            if field.name not in ("listen", "stores", "tasks"):
                setattr(self, field.name, options.get(field.name, getattr(settings, field.name)))
        self.name = name
        self.id = -1
        self.connections: dict[int, Any] = Connections()
        self.application: Any = None
        self.choose_subprotocol: Callback = None
        self.on_worker_start: Callback = None
        self.on_worker_stop: Callback = None
        self.on_worker_reload: Callback = None
        self.on_connect: Callback = None
        self.on_message: Callback = None
        self.on_close: Callback = None
        self.on_error: Callback = None
        self.on_buffer_full: Callback = None
        self.on_buffer_drain: Callback = None
        self.served: dict[str, TaskFunction] = {}

    def __repr__(self) -> str:
        return f"<Worker {self.name} {self.listen}>"

    def settings(self) -> ServiceSettings:
        """This worker's options, checked.

        Raises:
            ConfigError: naming all that is wrong.
        """
        options = {
            field.name: getattr(self, field.name)
            for field in fields(ServiceSettings)
            if field.name not in ("name", "listen", "stores", "tasks")
        }
        return make_service(self.name, str(self.listen), **options)

    def load(self) -> None:
        """Find the tasks; to be called with everything monkey-patched.

        Raises:
            ConfigError: there are none, or a name is taken twice.
        """
        wanted = [self.tasks] if isinstance(self.tasks, str) else list(self.tasks)
        if not wanted:
            return
        functions = ModuleType(f"the tasks of worker {self.name}")
        modules = []
        for item in wanted:
            if isinstance(item, str):
                __import__(item)
                modules.append(sys.modules[item])
            elif isinstance(item, ModuleType):
                modules.append(item)
            else:
                setattr(
                    functions, item.__name__, item if hasattr(item, "__gtask__") else task(item)
                )
        if vars(functions).keys() - vars(ModuleType("")).keys():
            modules.append(functions)
        self.served = find_tasks(modules)

    def function_names(self) -> list[str]:
        """What `status` may show as running; the scoreboard holds positions in this list."""
        return list(self.served) or ["on_message"]
