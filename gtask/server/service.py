"""`TaskService`: the tasks of one worker process, their turns, limits and built-in functions."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any

from greenlet import GreenletExit

from ..binding import TaskFunction
from ..errors import (
    BadArguments,
    Draining,
    Overloaded,
    TaskCancelled,
    TaskError,
    TaskTimedOut,
    TaskTimeout,
    UnknownTask,
)
from ..net.poller import Poller
from ..net.reactor import Reactor
from ..protocols.messages import BARE, openings
from .dispatch import TaskConnection
from .execution import Execution, native_thread
from .gauge import Gauge
from .turns import Turn

log = logging.getLogger("gtask.tasks")

MAX_WAITING = 10000  # JSON-RPC calls of one process that may wait for a turn
CLEANUP_SECONDS = 5.0  # what a task may take to end after its limit, before it is killed
KILLS = 5  # times, a second apart, that a task is killed before it is given up
SERVE_SECONDS = 0.005  # what is served at a time, before the loop looks at all else
GOAWAY_SECONDS = 1.0  # what a peer that was told to go may stay idle


class TaskService:
    """Runs the tasks of one worker process.

    Args:
        tasks: what may be called, by name.
        concurrency: tasks at once; others wait.
        task_timeout: seconds a task may take by default; 0 is no limit.
        gauge: where to count.
    """

    def __init__(
        self,
        tasks: dict[str, TaskFunction],
        reactor: Reactor,
        gauge: Gauge,
        *,
        concurrency: int,
        task_timeout: float,
        max_frame_bytes: int,
        max_batch: int,
        max_send_buffer_bytes: int,
    ) -> None:
        self.tasks = tasks
        for number, task in enumerate(tasks.values(), 1):
            task.number = number
        self.openings = {n: openings(n, task.first_name) for n, task in tasks.items()}
        self.reactor = reactor
        self.gauge = gauge
        self.concurrency = concurrency
        self.task_timeout = task_timeout
        self.max_frame_bytes = max_frame_bytes
        self.max_batch = max_batch
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.thread = native_thread()
        self.connections: set[TaskConnection] = set()
        self._poller: Poller | None = None  # made by the first connection, in the forked process
        self.spare_turns: list[Turn] = []
        self._ready: list[TaskConnection] = []  # have something to do, in the order it came
        self._taken: list[TaskConnection] = []  # those of them that are worked off, the next last
        self._until = 0.0  # the time is up for those
        self._later: Any = None  # a timer for the rest
        self.waiting: deque[Execution] = deque()
        self.blocked: set[Execution] = set()
        self.running = 0  # tasks that have blocked; the one on the CPU is not counted
        self.is_draining = False
        self.is_stopping = False  # the drain's time is up: start nothing more
        self.on_full: Any = None  # called when no turn is left
        self.on_abandoned: Any = None  # called with the name of a task that cannot be ended
        self._builtins = {
            "gtask.ping": self._ping,
            "gtask.health": self._health,
            "gtask.functions": self._functions,
            "gtask.cancel": self._cancel,
        }
        # For the pool of `blocking` tasks. It is made by its first use, and not before: as each
        # worker's own, it would take 250 kB.
        reactor.hub.threadpool_size = max(10, min(concurrency, 100))

    # -- connections --------------------------------------------------------------------------

    def accept(self, socket: Any, address: Any, tls: Any = None) -> None:
        """Serve the calls that come in on `socket`."""
        if self._poller is None:
            self._poller = Poller(self.reactor.loop, self.work_off)
        connection = TaskConnection(self, self._poller, address)
        self.connections.add(connection)
        try:
            connection._open(socket, tls)
        except OSError as error:  # the kernel watches no more descriptors, epoll(7)
            log.error("cannot serve a connection: %s", error.strerror)
            connection._abort("cannot be watched")

    def look(self) -> None:
        """Serve what has come already."""
        if self._poller is not None:
            self._poller.look()

    def leave(self) -> None:
        """This is a child that a task has forked: leave the connections to the worker."""
        if self._poller is not None:
            self._poller.leave()

    def drain(self) -> None:
        """Let peers go: tell those that understand, close the others between two calls."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.say_goaway()

    def sweep(self, idle_seconds: float = GOAWAY_SECONDS) -> None:
        """Close connections without calls on which nothing came for `idle_seconds`."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections):
            connection.end_if_idle(since)

    def stop(self) -> None:
        """The drain's time is up: refuse what waits and what still comes."""
        self.is_stopping = True
        while self.waiting:
            self._refuse(self.waiting.popleft(), Draining("the server is shutting down"))

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.connections):
            connection._abort("stopped")
        if self._poller is not None:
            self._poller.close()
        if self._later is not None:
            self._later.stop()
            self._later.close()

    @property
    def is_full(self) -> bool:
        return self.running >= self.concurrency

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.waiting and not self.connections

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        if not self.blocked:
            return 0, 0.0
        first = min(self.blocked, key=_started)
        return first.task.number, first.started

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        return [connection.report() for connection in self.connections]

    # -- the queue of connections -------------------------------------------------------------

    def enqueue(self, connection: TaskConnection) -> None:
        """Have a connection's inbox worked off by the next `work_off`."""
        self._ready.append(connection)

    def postpone(self, connection: TaskConnection) -> None:
        """The same, when the loop has looked at all else."""
        self._ready.append(connection)
        self._work_off_later()

    def _work_off_later(self) -> None:
        # A timer, as gevent runs up to 50 callbacks, also those that callbacks ask for, before the
        # loop turns.
        if self._later is None:
            self._later = self.reactor.loop.timer(0)
        self._later.start(self.work_off)

    def work_off(self) -> None:
        """Serve those that are ready, one greenlet all that do not block; hub only."""
        taken = self._taken
        self._ready.reverse()
        taken[:0] = self._ready
        self._ready.clear()
        self._until = monotonic() + SERVE_SECONDS
        try:
            while taken:
                self._run(self._serve)
                if taken and monotonic() > self._until:
                    break
        finally:
            if taken:
                self._work_off_later()
            self.gauge.leave()

    def _run(self, work: Callable[[Turn], object]) -> None:
        """Run it in a greenlet, and what is behind it if it blocks."""
        turn = self.spare_turn()
        turn.switch(work)
        if not turn.is_over:
            turn.connection.go_on_without(turn)
        elif turn.connection._cork:  # it was killed between two calls
            turn.connection.end_work()

    def _serve(self, turn: Turn) -> None:
        """In a greenlet: one connection after the other, until a call blocks or the time is up."""
        taken = self._taken
        while taken:
            connection = taken.pop()
            if not connection.work(turn) or connection.last_active > self._until:
                return

    def spare_turn(self) -> Turn:
        """A greenlet for what comes next."""
        turn = self.spare_turns.pop() if self.spare_turns else Turn(self)
        turn.is_over = False
        return turn

    # -- turns --------------------------------------------------------------------------------

    def wait_for_turn(self, execution: Execution) -> None:
        """Queue a call; all turns are taken."""
        if self.is_stopping:
            self._refuse(execution, Draining("the server is shutting down"))
        elif execution.dialect != BARE and len(self.waiting) >= MAX_WAITING:
            data = {"retry_after": 1.0}
            self._refuse(execution, Overloaded(f"{MAX_WAITING} calls are waiting already", data))
        else:
            self.waiting.append(execution)
            if execution.deadline is not None:
                self._arm(execution)

    def serve_waiting(self) -> None:
        """Start what waits, as far as there are turns; only the hub may call this."""
        while self.waiting and self.running < self.concurrency:
            execution = self.waiting.popleft()
            if not execution.is_answered:  # it may have timed out or been cancelled
                execution.connection.run_waiting(execution)

    def serve_waiting_soon(self) -> None:
        """The same, from a greenlet."""
        self.reactor.loop.run_callback(self.serve_waiting)

    def detach(self, execution: Execution, runner: Turn) -> None:
        """The call has blocked: from now on it is one of those that run."""
        execution.runner = runner
        execution.is_counted = True
        self.blocked.add(execution)
        self.running += 1
        self.gauge.blocked(self.running)
        if execution.deadline is not None and not execution.is_answered:
            self._arm(execution)
        if self.running == self.concurrency and self.on_full is not None:
            self.on_full()

    def attach(self, execution: Execution) -> None:
        """A call that had blocked has ended."""
        execution.is_done = True
        if execution.timer is not None:
            execution.timer.close()
            execution.timer = None
        self._count_out(execution)

    def _count_out(self, execution: Execution) -> None:
        if execution.is_counted:
            execution.is_counted = False
            self.blocked.discard(execution)
            self.running -= 1
            self.gauge.blocked(self.running)
            if self.waiting:
                self.serve_waiting_soon()

    # -- limits -------------------------------------------------------------------------------

    def _arm(self, execution: Execution) -> None:
        if execution.timer is not None:
            execution.timer.close()
        assert execution.deadline is not None
        execution.timer = self.reactor.loop.timer(max(0.0, execution.deadline - monotonic()))
        execution.timer.start(self._expired, execution, update=True)

    def _expired(self, execution: Execution) -> None:
        limit = f"{execution.function}: timed out"
        if execution.runner is None:
            self._refuse(execution, TaskTimedOut(f"{limit} before its turn came"))
            return
        after = monotonic() - execution.started
        log.warning("task %r timed out after %.3g s", execution, after)
        self._refuse(execution, TaskTimedOut(f"{limit} after {after:.3g} s"))
        self._end(execution, TaskTimeout(limit))

    def _refuse(self, execution: Execution, error: TaskError) -> None:
        """Answer for a task instead of it."""
        if not execution.is_answered:
            execution.connection.answer(execution, execution.error(error))

    def _end(self, execution: Execution, how: BaseException) -> None:
        """Throw into a task whose caller has been answered, until it ends. Hub only."""
        if execution.is_done:
            return
        execution.runner.throw(how)
        if execution.is_done:
            return
        execution.kills += 1
        if execution.timer is not None:
            execution.timer.close()
            execution.timer = None
        if execution.kills > KILLS:
            self._abandon(execution)
            return
        wait = CLEANUP_SECONDS if execution.kills == 1 else 1.0
        execution.timer = self.reactor.loop.timer(wait)
        execution.timer.start(self._end, execution, GreenletExit("time limit"), update=True)

    def _abandon(self, execution: Execution) -> None:
        log.error("task %r ignores its end; its turn is given to others", execution)
        self._count_out(execution)
        self.gauge.abandoned()
        if self.on_abandoned is not None:
            self.on_abandoned(execution.function)

    # -- built-in functions -------------------------------------------------------------------

    def builtin(self, call: Execution) -> bytes:
        """The reply to a call of a name that is no task's: one of ours, or unknown."""
        function = self._builtins.get(call.function)
        if function is None:
            return call.error(UnknownTask(f"unknown function {call.function[:100]!r}"))
        try:
            return call.result(function(call))
        except TaskError as error:
            return call.error(error)

    def _ping(self, call: Execution) -> str:
        return "pong"

    def _health(self, call: Execution) -> dict[str, Any]:
        status = "draining" if self.is_draining else "busy" if self.is_full else "ready"
        return {
            "status": status,
            "running": self.running,
            "waiting": len(self.waiting),
            "concurrency": self.concurrency,
            "connections": len(self.connections),
        }

    def _functions(self, call: Execution) -> list[str]:
        return sorted(self.tasks)

    def _cancel(self, call: Execution) -> bool:
        args = call.args
        if type(args) is not dict or args.keys() != {"id"}:
            raise BadArguments('gtask.cancel takes {"id": ...}')
        id = args["id"]
        target = call.connection.find(id) if type(id) in (int, str) else None
        if target is None:
            return False
        self._refuse(target, TaskCancelled(f"{target.function}: cancelled"))
        if target.runner is not None:  # by the hub, not by the greenlet that reads this call
            self.reactor.loop.run_callback(self._end, target, GreenletExit("cancelled"))
        return True


def _started(execution: Execution) -> float:
    return execution.started
