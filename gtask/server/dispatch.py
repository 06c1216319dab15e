"""From frames to tasks to replies: `TaskConnection` reads calls, `TaskService` runs them.

The hub cuts a read into frames and switches into a pooled greenlet, which parses them and runs
their tasks one after the other. Most tasks do not block: they are over when the hub gets the CPU
back, so they need no timer for their time limit and no entry anywhere. When one blocks, the hub
gets the CPU back in the middle of it: that call becomes an `Execution`, with a timer, that can be
found and cancelled, and the frames behind it are given to the next greenlet. Replies that are made
while one read is worked off go out in one send.

Only frames of a JSON-RPC call are run beside each other. Bare calls, whose answers nothing but
their order tells apart, hold back what comes behind them on their connection.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any

from gevent import monkey
from greenlet import GreenletExit, greenlet

from ..errors import (
    BadArguments,
    Draining,
    InternalError,
    Overloaded,
    ProtocolError,
    TaskCancelled,
    TaskError,
    TaskFailed,
    TaskTimedOut,
    TaskTimeout,
    UnknownTask,
)
from ..net.connection import format_address
from ..net.reactor import Reactor
from ..net.stream import OPEN, State, Stream
from ..protocols.jsontext import dumps, loads
from ..protocols.messages import (
    BARE,
    JSONRPC,
    Call,
    InvalidCall,
    batch_too_long,
    notification,
    protocol_error_reply,
    read_message,
)
from ..protocols.text import TextDecoder
from ..tasks import TaskFunction, running_task
from .gauge import Gauge

log = logging.getLogger("gtask.tasks")

MAX_OUTSTANDING = 1000  # blocked or waiting calls of one connection; past it, it is not read
MAX_WAITING = 10000  # JSON-RPC calls of one process that may wait for a turn
TURN_SECONDS = 0.005  # what one connection may take before others have theirs
CORK_SECONDS = 0.001  # what a reply may wait for the next one
CLEANUP_SECONDS = 5.0  # what a task may take to end after its limit, before it is killed
KILLS = 5  # times, a second apart, that a task is killed before it is given up
GOAWAY_SECONDS = 1.0  # what a peer that was told to go may stay idle
MAX_SPARE_TURNS = 128  # parked greenlets; each holds about 20 kB

_switch = greenlet.switch
# The patched one tells greenlets apart, not threads.
_native_thread = monkey.get_original("_thread", "get_ident")


class Execution(Call):
    """A call that waits for its turn or has blocked; what `current_task` gives.

    Attributes:
        deadline: when it is answered in any case, or None.
        is_answered: its caller has been told something; what the task still does goes nowhere.
        is_done: it has ended.
    """

    # Class attributes instead of slots: most of them keep these values.
    batch: Batch | None = None
    deadline: float | None = None
    is_answered = False
    is_counted = False  # it is one of the service's `running`
    is_done = False
    is_kept = False  # it is one of its connection's outstanding calls
    kills = 0
    runner: Any = None
    timer: Any = None
    bound: tuple[list[Any], dict[str, Any]]
    connection: TaskConnection
    started: float
    task: TaskFunction

    def __repr__(self) -> str:
        return f"{self.function} id={self.id} of {self.connection.peer}"

    @property
    def peer(self) -> str:
        return self.connection.peer

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Tell the caller, if it asked and keeps up with reading."""
        if not self.wants_progress or self.is_answered:
            return
        line = notification(
            "gtask.progress", {"id": self.id, "done": done, "total": total, "note": note}
        )
        connection = self.connection
        if _native_thread() == connection.service.thread:
            connection.send_progress(line)
        else:  # a `blocking` task, in its native thread
            loop = connection._reactor.loop
            loop.run_callback_threadsafe(connection.send_progress, line)

    def set_limit(self, now: float, service_timeout: float) -> None:
        """The task starts: its own or its service's limit may come before its caller's."""
        self.started = now
        limit = self.task.timeout
        if limit is None:
            limit = service_timeout
        if limit and (self.deadline is None or now + limit < self.deadline):
            self.deadline = now + limit


class Batch:
    """The answers of a JSON-RPC batch, until all of them are there."""

    def __init__(self, size: int) -> None:
        self._missing = size
        self._answers: list[bytes] = []

    def add(self, answer: bytes | None) -> bytes | None:
        """Take one answer (None for a notification); returns the whole reply with the last."""
        self._missing -= 1
        if answer is not None:
            self._answers.append(answer)
        if self._missing or not self._answers:
            return None
        return b"[" + b",".join(self._answers) + b"]"


class Turn(greenlet):
    """A greenlet that takes up calls of one connection after the other, parked in between.

    It is used again because a new one costs 30 to 40 µs (see `gtask.net.reactor`).

    Attributes:
        call: the arguments of the `Call` that runs now.
        execution: that call as an object; made when somebody asks, since most never need one.
        context: what each call's own context is copied from.
        is_over: it is parked.
        is_detached: its call has blocked, and the hub has gone on without it.
    """

    call: tuple[Any, ...]
    connection: TaskConnection
    task: TaskFunction
    started: float

    def __init__(self, service: TaskService) -> None:
        super().__init__(parent=service.reactor.hub)
        self._hub = service.reactor.hub
        self._spare = service.spare_turns
        self.context = Context()
        self.context.run(running_task.set, self.current)
        self.execution: Execution | None = None
        self.is_over = False
        self.is_detached = False

    def run(self, work: Callable[[Turn], None]) -> None:
        spare, hub = self._spare, self._hub
        while True:
            try:
                work(self)
            except BaseException:  # the edge: a kill that came between two calls, or our bug
                log.exception("%r was cut off", self)
            self.is_over = True
            if len(spare) >= MAX_SPARE_TURNS:
                return
            self.execution = None
            spare.append(self)
            try:
                work = _switch(hub)
            except BaseException:  # thrown at us while parked, e.g. by a late kill
                if self in spare:
                    spare.remove(self)
                return

    def current(self) -> Execution:
        """The call that runs in this turn."""
        execution = self.execution
        if execution is None:
            execution = self.execution = Execution(*self.call)
            execution.connection = self.connection
            execution.task = self.task
            execution.set_limit(self.started, self.connection.service.task_timeout)
        return execution


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
        concurrency: int = 100,
        task_timeout: float = 60.0,
        max_frame_bytes: int,
        max_batch: int = 100,
        max_send_buffer_bytes: int,
    ) -> None:
        self.tasks = tasks
        for number, task in enumerate(tasks.values(), 1):
            task.number = number
        self.reactor = reactor
        self.gauge = gauge
        self.concurrency = concurrency
        self.task_timeout = task_timeout
        self.max_frame_bytes = max_frame_bytes
        self.max_batch = max_batch
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.thread = _native_thread()
        self.connections: set[TaskConnection] = set()
        self.spare_turns: list[Turn] = []
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
        pool = reactor.hub.threadpool
        pool.maxsize = max(pool.maxsize, min(concurrency, 100))

    # -- connections --------------------------------------------------------------------------

    def accept(self, socket: Any, address: Any, tls: Any = None) -> None:
        """Serve the calls that come in on `socket`."""
        connection = TaskConnection(self, address)
        self.connections.add(connection)
        connection._open(socket, tls)

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
                self.reactor.loop.run_callback(self.serve_waiting)

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

    def failure(self, call: Any, error: BaseException) -> TaskError:
        """What a caller is told of an exception; the traceback goes to the log."""
        log.error("task %r failed", call, exc_info=error)
        try:
            message = str(error)
        except Exception:  # a user's own __str__
            message = ""
        name = type(error).__name__
        data = {"type": name, "message": message}
        return TaskFailed(f"{name}: {message}" if message else name, data)

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


_EMPTY: list[bytes] = []  # never added to


def _started(execution: Execution) -> float:
    return execution.started


class TaskConnection(Stream):
    """One peer's calls, in either dialect."""

    __slots__ = (
        "_address",
        "_bare",
        "_cork",
        "_decoder",
        "_has_ended",
        "_inbox",
        "_is_paused",
        "_kept",
        "_last_words",
        "_outstanding",
        "_replies",
        "_speaks_rpc",
        "last_active",
        "service",
    )

    def __init__(self, service: TaskService, address: Any) -> None:
        Stream.__init__(self, service.reactor)
        self.service = service
        self._address = address
        self._decoder = TextDecoder(service.max_frame_bytes)
        self._inbox: list[bytes] = _EMPTY  # frames that were not taken up yet, the first one last
        self._bare: Execution | None = None  # the bare call that holds back what comes behind it
        self._kept: dict[Any, Execution] | None = None  # by id, what can be cancelled
        self._replies: list[bytes] = []
        self._cork = 0.0  # since when replies are collected; 0: they go out one by one
        self._outstanding = 0  # calls that have blocked or wait for a turn
        self._has_ended = False
        self._is_paused = False
        self._last_words = b""
        self._speaks_rpc = False
        self.last_active = monotonic()

    def __repr__(self) -> str:
        return f"<TaskConnection {self.peer} {State(self.state).name} {self._outstanding}>"

    @property
    def peer(self) -> str:
        return format_address(self._address) or "unix"

    def report(self) -> dict[str, Any]:
        """What the operator's list of connections shows."""
        return {
            "peer": self.peer,
            "protocol": "json-rpc" if self._speaks_rpc else "bare",
            "outstanding": self._outstanding,
            "bytes_read": self.bytes_read,
            "bytes_written": self.bytes_written,
            "send_buffer": self._buffered,
            "idle_seconds": round(monotonic() - self.last_active, 3),
        }

    # -- in the hub: frames in, turns out -----------------------------------------------------

    def _received(self, data: bytes) -> None:
        frames = self._decoder.feed(data)
        frames.reverse()  # they are popped from the end
        if self._inbox or self._bare is not None:
            self._inbox = frames + self._inbox
            self._settle()
        elif frames:
            self._inbox = frames
            self._work()
        if self._decoder.failed and not self._last_words:
            self._last_words = protocol_error_reply(self._decoder.error())
            self._settle()

    def _work(self) -> None:
        """Have the inbox worked off, until it is empty or others must have their turn."""
        service = self.service
        gauge = service.gauge
        spare = service.spare_turns
        now = self.last_active = self._cork = monotonic()
        gauge.enter(now)
        while True:
            turn = spare.pop() if spare else Turn(service)
            turn.connection = self
            turn.is_over = False
            turn.switch(self._take_up)
            if not turn.is_over:
                self._detach(turn)
            if not self._inbox or self._bare is not None:
                break
            if self._outstanding >= MAX_OUTSTANDING or monotonic() > now + TURN_SECONDS:
                break
        gauge.leave()
        self._cork = 0.0
        if self._replies:
            self._flush()
        if self._inbox or self._outstanding or self._is_paused or service.is_draining:
            self._settle()
        elif self._output is not None and len(self._output) > service.max_send_buffer_bytes:
            self._hold()

    def run_waiting(self, execution: Execution) -> None:
        """A turn has become free for a call that waited."""
        service = self.service
        turn = service.spare_turns.pop() if service.spare_turns else Turn(service)
        turn.connection = self
        turn.is_over = False
        turn.execution = execution
        turn.task = execution.task
        now = turn.started = monotonic()
        execution.set_limit(now, service.task_timeout)
        if execution.timer is not None:
            execution.timer.close()
            execution.timer = None
        service.gauge.enter(now)
        turn.switch(self._run_kept)
        if not turn.is_over:
            self._detach(turn)
        service.gauge.leave()

    def _detach(self, turn: Turn) -> None:
        """The turn's call has blocked."""
        turn.is_detached = True
        execution = turn.current()
        self._keep(execution)
        self.service.detach(execution, turn)

    def _keep(self, execution: Execution) -> None:
        """The call is not answered at once: count it, and make it findable by its id."""
        if execution.is_kept or execution.is_answered:
            return
        execution.is_kept = True
        self._outstanding += 1
        if execution.dialect == BARE:
            self._bare = execution
        elif execution.id is not None:
            if self._kept is None:
                self._kept = {}
            self._kept[execution.id] = execution

    def find(self, id: str | int) -> Execution | None:
        """The call of that id, if it waits or has blocked."""
        return self._kept.get(id) if self._kept is not None else None

    # -- in a greenlet: one frame after the other ---------------------------------------------

    def _take_up(self, turn: Turn) -> None:
        """Parse and run calls until one blocks, the inbox is empty or the time is up.

        The plain forms of both dialects are told here by their shape, without `read_message`,
        and without an object for the call: that halves the cost of a small task.
        """
        service = self.service
        tasks = service.tasks
        inbox = self._inbox
        replies = self._replies
        turn.started = self._cork
        until = self._cork + TURN_SECONDS
        while inbox:
            try:
                message = loads(inbox.pop())
            except ProtocolError as error:
                self._reply(protocol_error_reply(error))
                continue
            function: Any = None
            if type(message) is dict:
                size = len(message)
                if size == 2 and "args" in message:
                    function = message.get("function")
                    args, id, dialect = message["args"], None, BARE
                elif size == 4 and message.get("jsonrpc") == "2.0" and "params" in message:
                    args, id, dialect = message["params"], message.get("id"), JSONRPC
                    if type(id) is int or type(id) is str:
                        function = message.get("method")
            task = tasks.get(function) if type(function) is str else None
            if (
                task is not None
                and type(args) is dict
                and args.keys() == task.plain_names
                and service.running < service.concurrency
                and not service.is_stopping
            ):
                turn.task = task
                turn.call = call = (function, args, id, dialect, False)
                reply = self._run(turn, (), args, call)
                if turn.execution is None:
                    replies.append(reply)
                else:
                    self._conclude(turn.execution, reply)
                    turn.execution = None
            else:
                self._take_slowly(message, turn)
            if turn.is_detached:
                turn.is_detached = False
                return  # the hub has given the inbox to somebody else
            if inbox:
                now = turn.started = monotonic()
                if now > self._cork + CORK_SECONDS and replies:
                    self._flush()
                    self._cork = now
                if now > until:
                    return

    def _run(self, turn: Turn, positional: Any, keywords: Any, call: Any) -> bytes:
        """Run the turn's task; returns the reply to its caller."""
        task = turn.task
        gauge = self.service.gauge
        gauge.done += 1
        gauge.ints[gauge.executing] = task.number
        try:
            if task.blocking:
                value = self._run_in_thread(turn, positional, keywords)
            else:
                # A context of its own each: the greenlet has run other callers' tasks before.
                value = turn.context.copy().run(task.function, *positional, **keywords)
            if type(call) is not tuple:
                return b"" if call.is_notification else call.result(value)
            if call[3] == BARE:
                return dumps(value)
            id = call[2]
            return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (
                dumps(value),
                b"%d" % id if type(id) is int else dumps(id),
            )
        except InternalError as error:
            log.error("task %r: %s", turn.current(), error.message)
            return self._failed(turn, error)
        except BaseException as error:  # the edge to user code
            execution = turn.current()
            if execution.is_answered and isinstance(error, TaskTimeout | GreenletExit):
                return self._failed(turn, TaskFailed())  # it ended as it was told to
            return self._failed(turn, self.service.failure(execution, error))

    def _failed(self, turn: Turn, error: TaskError) -> bytes:
        self.service.gauge.failed()
        return turn.current().error(error)

    def _run_in_thread(self, turn: Turn, positional: Any, keywords: Any) -> Any:
        execution = turn.current()
        function = turn.task.function

        def run() -> Any:
            running_task.set(lambda: execution)  # it may outlive the turn, if it times out
            return function(*positional, **keywords)

        return self._reactor.hub.threadpool.apply(turn.context.copy().run, (run,))

    def _conclude(self, execution: Execution, reply: bytes) -> None:
        """A call that is an object has ended."""
        self.service.attach(execution)
        if not execution.is_answered:
            self.answer(execution, reply)

    def _run_kept(self, turn: Turn) -> None:
        """Run a call that is an object already."""
        execution = turn.current()
        positional, keywords = execution.bound
        self._conclude(execution, self._run(turn, positional, keywords, execution))
        turn.is_detached = False

    def _take_slowly(self, message: Any, turn: Turn) -> None:
        """Take up any message there can be."""
        call = read_message(message, Execution)
        if type(call) is Execution:
            self._take_call(call, turn)
        elif type(call) is list:
            self._take_batch(call, turn)
        else:
            assert isinstance(call, InvalidCall)
            self._reply(call.error(call.problem))

    def _take_call(self, call: Execution, turn: Turn) -> None:
        service = self.service
        call.connection = self
        if call.dialect != BARE:
            self._speaks_rpc = True
        task = service.tasks.get(call.function)
        if task is None:
            self._answer_now(call, service.builtin(call))
            return
        try:
            call.bound = task.bind(call.args)
        except BadArguments as error:
            self._answer_now(call, call.error(error))
            return
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        if service.running >= service.concurrency or service.is_stopping:
            self._keep(call)
            service.wait_for_turn(call)
            return
        turn.execution = call
        turn.task = task
        call.set_limit(monotonic(), service.task_timeout)
        self._conclude(call, self._run(turn, *call.bound, call))
        turn.execution = None

    def _take_batch(self, messages: list[Any], turn: Turn) -> None:
        self._speaks_rpc = True
        if len(messages) > self.service.max_batch:
            self._reply(protocol_error_reply(batch_too_long(self.service.max_batch)))
            return
        batch = Batch(len(messages))
        calls = [read_message(message, Execution) for message in messages]
        for call in calls:
            if type(call) is Execution and call.dialect != BARE:
                call.batch = batch
                self._take_batched(call, turn)
                continue
            if not isinstance(call, InvalidCall):  # an array or a bare task inside a batch
                call = read_message(None)
            assert isinstance(call, InvalidCall)
            call.dialect = JSONRPC
            whole = batch.add(call.error(call.problem))
            if whole:
                self._reply(whole)

    def _take_batched(self, call: Execution, turn: Turn) -> None:
        """One call of a batch: the others do not wait for it, should it block."""
        task = self.service.tasks.get(call.function)
        if task is None:
            self._take_call(call, turn)
            return
        call.connection = self
        try:
            call.bound = task.bind(call.args)
        except BadArguments as error:
            self._answer_now(call, call.error(error))
            return
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        self._keep(call)
        self.service.wait_for_turn(call)
        self._reactor.loop.run_callback(self.service.serve_waiting)

    # -- answering ----------------------------------------------------------------------------

    def _answer_now(self, call: Execution, reply: bytes) -> None:
        call.is_answered = True
        self._deliver(call, reply)

    def answer(self, call: Execution, reply: bytes) -> None:
        """Give `call` its one answer."""
        call.is_answered = True
        if call.is_kept:
            self._outstanding -= 1
            if call is self._bare:
                self._bare = None
            elif self._kept is not None and self._kept.get(call.id) is call:
                del self._kept[call.id]
        self._deliver(call, reply)
        if not self._cork:
            self._reactor.loop.run_callback(self._settle)

    def _deliver(self, call: Execution, reply: bytes) -> None:
        if call.batch is not None:
            whole = call.batch.add(None if call.is_notification else reply)
            if whole is not None:
                self._reply(whole)
        elif not call.is_notification:
            self._reply(reply)

    def _reply(self, line: bytes) -> None:
        if self.state != OPEN:
            return
        if not self._cork:
            self._write(line + b"\n")
        else:
            self._replies.append(line)

    def _flush(self) -> None:
        replies = self._replies
        replies.append(b"")
        data = b"\n".join(replies)
        replies.clear()
        if self.state == OPEN:
            self._write(data)

    def send_progress(self, line: bytes) -> None:
        """Progress is news, not data: it is dropped while the peer reads too slowly."""
        if self._buffered < self.service.max_send_buffer_bytes:
            self._reply(line)

    # -- pace, and the end --------------------------------------------------------------------

    def _settle(self) -> None:
        """Work on, read on, hold back or close, as things stand now. Hub only."""
        if self.state != OPEN or self._cork:
            return
        if self._bare is not None or self._outstanding >= MAX_OUTSTANDING:
            if not self._is_paused and self._inbox:
                self._hold()
        elif self._inbox:
            self._hold()
            self._reactor.loop.run_callback(self._go_on)
        elif self._last_words or self._has_ended:
            self._end_if_done()
        elif self._buffered > self.service.max_send_buffer_bytes:
            self._hold()
        else:
            if self._is_paused:
                self._is_paused = False
                self._resume()
            if self.service.is_draining:
                self._end_if_done()

    def _go_on(self) -> None:
        if self.state == OPEN and not self._cork and self._inbox and self._bare is None:
            self._work()

    def _hold(self) -> None:
        self._is_paused = True
        self._pause()

    def _flushed(self) -> None:
        self._settle()

    def say_goaway(self) -> None:
        """Tell a peer that speaks JSON-RPC to call elsewhere."""
        if self._speaks_rpc:
            self._reply(notification("gtask.goaway", {}))
        self.last_active = monotonic()

    def end_if_idle(self, since: float) -> None:
        """Close a connection without calls that has said nothing after `since`."""
        if self._outstanding == 0 and not self._inbox and self.last_active < since:
            self._close("draining" if self.service.is_draining else "idle for too long")

    def _ended(self) -> None:
        # The peer has closed its half: what it asked for before is still answered.
        self._has_ended = True
        if not (self._outstanding or self._inbox or self._output or self._last_words):
            self._abort("closed by the peer")
        else:
            self._end_if_done()

    def _end_if_done(self) -> None:
        if self._outstanding or self._inbox or self._cork or self.state != OPEN:
            return
        if self._last_words:
            self._write(self._last_words + b"\n")
            self._close("frame too long", linger=True)
        elif self._has_ended:
            self._close("closed by the peer")
        elif self.service.is_draining and not self._speaks_rpc:
            # Between two calls: the one answered last was read after the drain began.
            self._close("draining", linger=True)

    def _closed(self, reason: str) -> None:
        self._inbox = _EMPTY
        self._kept = None
        self.service.connections.discard(self)
        self.service.gauge.closed(self.bytes_read, self.bytes_written)
