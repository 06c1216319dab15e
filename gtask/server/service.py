"""`TaskService`: the `@task` functions of one worker process, served to whoever connects."""

from __future__ import annotations

import logging
from time import monotonic
from typing import Any

from ..net.poller import Poller
from .dispatch import TaskConnection
from .engine import Engine
from .shared_listener import TextServer

log = logging.getLogger("gtask.tasks")


class TaskService:
    """Serves connections with the parts of an engine.

    Args:
        engine: with the tasks.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._poller: Poller | None = None  # made by the first connection, in the forked process

    def make_server(self, listener: Any) -> TextServer:
        """The server that accepts connections for it."""
        return TextServer(listener)

    def accept(self, socket: Any, address: Any, tls: Any = None) -> None:
        """Serve the calls that come in on `socket`."""
        engine = self.engine
        if self._poller is None:
            self._poller = Poller(engine.reactor.loop, engine.ready.work_off)
        connection = TaskConnection(engine, self._poller, address)
        engine.connections.add(connection)
        try:
            connection._open(socket, tls)
        except OSError as error:  # the kernel watches no more descriptors, epoll(7)
            connection._abort("cannot be watched")
            log.error("cannot serve a connection: %s", error.strerror)
        except BaseException:
            connection._abort("cannot be served")
            raise

    def poll(self) -> None:
        """Serve what has come already."""
        if self._poller is not None:
            self._poller.poll()

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave the connections to the worker."""
        for connection in self.engine.connections:
            connection.after_fork_in_child()
        if self._poller is not None:
            self._poller.after_fork_in_child()

    def drain(self) -> None:
        """Let peers go: tell those that understand, close the others between two calls."""
        self.engine.is_draining = True
        for connection in list(self.engine.connections):
            connection.say_goaway()

    def close_idle(self, idle_seconds: float) -> None:
        """Close connections without calls on which nothing came for `idle_seconds`."""
        since = monotonic() - idle_seconds
        for connection in list(self.engine.connections):
            connection.close_if_idle(since)

    def stop(self) -> None:
        """The drain's time is up: refuse what waits and what still comes."""
        self.engine.turns.close()

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.engine.connections):
            connection._abort("stopped")
        if self._poller is not None:
            self._poller.close()
        self.engine.ready.close()

    @property
    def is_full(self) -> bool:
        return self.engine.turns.is_full or self.engine.threads.are_used_up

    @property
    def is_idle(self) -> bool:
        turns = self.engine.turns
        return not turns.running and not turns.waiting and not self.engine.connections

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        return self.engine.turns.oldest()

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        return [connection.report() for connection in self.engine.connections]
