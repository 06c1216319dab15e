"""`TaskService`: the `@task` functions of one worker process, served to whoever connects."""

from __future__ import annotations

from time import monotonic
from typing import Any

from ..logs.loggers import get_logger
from ..net.poller import Poller
from ..net.stream import OPEN
from .dispatch import TaskConnection
from .engine import Engine
from .shared_listener import TextServer, keep_back_silent

log = get_logger("gtask.tasks")


class TaskService:
    """Serves connections with the parts of an engine.

    Args:
        engine: with the tasks.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._poller: Poller | None = None  # made by the first connection, in the forked process
        self._newest: TaskConnection | None = None

    def make_server(self, listener: Any) -> TextServer:
        """The server that accepts connections for it; whoever has tasks speaks first."""
        keep_back_silent(listener)
        return TextServer(listener)

    def accept(self, socket: Any, address: Any, tls: Any = None) -> None:
        """Serve the calls that come in on `socket`."""
        engine = self.engine
        if self._poller is None:
            self._poller = Poller(engine.reactor.loop, engine.ready.work_off)
        connection = self._newest = TaskConnection(engine, self._poller, address)
        engine.connections.add(connection)
        try:
            connection._open(socket, tls)
            if tls is not None:
                engine.reactor.debts.owes_handshake(connection)
        except OSError as error:  # the kernel watches no more descriptors, epoll(7)
            connection._abort("cannot be watched")
            log.error("cannot serve a connection: %s", error.strerror)
        except BaseException:
            connection._abort("cannot be served")
            raise

    def serve_newest(self) -> None:
        """Serve what has come already on the connection that was accepted last."""
        newest, self._newest = self._newest, None
        if newest is not None and newest.state is OPEN and self._poller is not None:
            self._poller.read(newest)

    def after_fork_in_child(self) -> None:
        """This is a child that a task has forked: leave the connections to the worker."""
        for connection in self.engine.connections:
            connection.after_fork_in_child()
        self.engine.reactor.debts.after_fork_in_child()
        if self._poller is not None:
            self._poller.after_fork_in_child()
        if self.engine.queues is not None:
            self.engine.queues.each("after_fork_in_child")

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
        if self.engine.queues is not None:
            self.engine.queues.each("stop")

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.engine.connections):
            connection._abort("stopped")
        if self._poller is not None:
            self._poller.close()
        self.engine.ready.close()
        if self.engine.queues is not None:
            self.engine.queues.each("close")

    @property
    def is_full(self) -> bool:
        return self.engine.turns.is_full or self.engine.threads.are_used_up

    @property
    def is_idle(self) -> bool:
        turns, queues = self.engine.turns, self.engine.queues
        return (
            not turns.running
            and not turns.waits
            and not self.engine.connections
            and (queues is None or queues.is_idle)
        )

    @property
    def has_work(self) -> bool:
        turns, queues = self.engine.turns, self.engine.queues
        return bool(turns.running or turns.waits) or (queues is not None and not queues.is_idle)

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        return self.engine.turns.oldest()

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        return [connection.report() for connection in self.engine.connections]
