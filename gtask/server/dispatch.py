"""From frames to tasks to replies: `TaskConnection` reads calls, `TaskService` runs them.

The hub parses and answers; each task runs in a pooled greenlet that the hub switches into. A task
that does not block has finished when that switch returns, so its time limit needs no timer; only
one that blocked gets one. Replies made while one read is being worked off go out in one send.
"""

from __future__ import annotations

import logging
from collections import deque
from contextvars import Context, copy_context
from threading import get_ident
from time import monotonic
from typing import Any

from greenlet import GreenletExit, getcurrent

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
from ..net.reactor import Reactor, _Runner
from ..net.stream import State, Stream
from ..protocols.jsontext import loads
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

MAX_OUTSTANDING = 1000  # calls of one connection; past it the connection is not read
MAX_WAITING = 10000  # JSON-RPC calls of one process that may wait for a turn
TURN_SECONDS = 0.005  # what one connection may take before others have theirs
CORK_SECONDS = 0.001  # what a reply may wait for the next one
CLEANUP_SECONDS = 5.0  # what a task may take to end after its limit, before it is killed
KILLS = 5  # times, a second apart, that a task is killed before it is given up
GOAWAY_SECONDS = 1.0  # what a peer that was told to go may stay idle


class Execution(Call):
    """A call that is waiting for its turn, running or answered; what `current_task` gives."""

    __slots__ = (
        "batch",
        "bound",
        "connection",
        "deadline",
        "is_answered",
        "is_done",
        "kills",
        "runner",
        "started",
        "task",
        "timer",
    )

    batch: Batch | None
    bound: tuple[list[Any], dict[str, Any]]
    connection: TaskConnection
    deadline: float | None
    task: TaskFunction
    started: float

    def __init__(self, *call: Any) -> None:
        Call.__init__(self, *call)
        self.is_answered = False
        self.is_done = False
        self.batch = None
        self.deadline = None
        self.timer: Any = None
        self.runner: Any = None
        self.kills = 0

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
        if get_ident() == connection._service.thread:
            connection.send_progress(line)
        else:  # a `blocking` task, in its native thread
            loop = connection._reactor.loop
            loop.run_callback_threadsafe(connection.send_progress, line)


class Batch:
    """The answers of a JSON-RPC batch, until all of them are there."""

    __slots__ = ("answers", "missing")

    def __init__(self, size: int) -> None:
        self.missing = size
        self.answers: list[bytes] = []

    def add(self, answer: bytes | None) -> bytes | None:
        """Take one answer (None for a notification); returns the whole reply with the last."""
        self.missing -= 1
        if answer is not None:
            self.answers.append(answer)
        if self.missing or not self.answers:
            return None
        return b"[" + b",".join(self.answers) + b"]"


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
        self.numbers = {name: number for number, name in enumerate(tasks)}
        self.reactor = reactor
        self.gauge = gauge
        self.concurrency = concurrency
        self.task_timeout = task_timeout
        self.max_frame_bytes = max_frame_bytes
        self.max_batch = max_batch
        self.max_send_buffer_bytes = max_send_buffer_bytes
        self.thread = get_ident()
        self.connections: set[TaskConnection] = set()
        self.waiting: deque[Execution] = deque()
        self.blocked: set[Execution] = set()  # running, and the hub has gone on
        self.running = 0
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
        self.sweep()

    def sweep(self, idle_seconds: float = GOAWAY_SECONDS) -> None:
        """Close connections without calls on which nothing came for `idle_seconds`."""
        since = monotonic() - idle_seconds
        for connection in list(self.connections):
            connection.end_if_idle(since)

    def oldest(self) -> tuple[int, float]:
        """1 + the number of the function that has been running longest, and since when."""
        if not self.blocked:
            return 0, 0.0
        first = min(self.blocked, key=_started)
        return self.numbers[first.task.name] + 1, first.started

    def report(self) -> list[dict[str, Any]]:
        """Each connection, for the operator."""
        return [connection.report() for connection in self.connections]

    def abort(self) -> None:
        """Close every connection now."""
        for connection in list(self.connections):
            connection._abort("stopped")

    def stop(self) -> None:
        """The drain's time is up: refuse what waits and what still comes."""
        self.is_stopping = True
        while self.waiting:
            self._refuse(self.waiting.popleft(), Draining("the server is shutting down"))

    @property
    def is_full(self) -> bool:
        return self.running >= self.concurrency

    @property
    def is_idle(self) -> bool:
        return not self.running and not self.waiting and not self.connections

    # -- running ------------------------------------------------------------------------------

    def submit(self, execution: Execution) -> None:
        """Start a bound call, or let it wait for its turn."""
        if self.is_stopping:
            self._refuse(execution, Draining("the server is shutting down"))
        elif self.running < self.concurrency:
            self._start(execution)
        elif execution.dialect != BARE and len(self.waiting) >= MAX_WAITING:
            wait = {"retry_after": 1.0}
            self._refuse(execution, Overloaded(f"{MAX_WAITING} calls are waiting already", wait))
        else:
            self.waiting.append(execution)
            execution.connection.keep(execution)
            if execution.deadline is not None:
                self._arm(execution)

    def serve_waiting(self) -> None:
        """Start what waits, as far as there are turns; only the hub may call this."""
        while (execution := self._next()) is not None:
            self._start(execution)

    def _next(self) -> Execution | None:
        while self.waiting and self.running < self.concurrency:
            execution = self.waiting.popleft()
            if not execution.is_answered:  # it may have timed out or been cancelled
                return execution
        return None

    def _start(self, execution: Execution) -> None:
        """Run a call in a greenlet; returns when it ends or first blocks. Hub only."""
        idle = self.reactor.idle
        runner = idle.pop() if idle else _Runner(self.reactor)
        self._enter(execution, runner)
        runner.switch(self._run, (execution,))
        if not execution.is_done:
            self._keep(execution)
        self.gauge.left()

    def _enter(self, execution: Execution, runner: Any) -> None:
        execution.runner = runner
        now = execution.started = monotonic()
        limit = execution.task.timeout
        if limit is None:
            limit = self.task_timeout
        if limit and (execution.deadline is None or now + limit < execution.deadline):
            execution.deadline = now + limit
        self.running += 1
        self.gauge.entered(self.numbers[execution.task.name], now, self.running)
        if self.running == self.concurrency and self.on_full is not None:
            self.on_full()

    def _keep(self, execution: Execution) -> None:
        """The task has blocked, or may do so unseen: it needs a timer, and can be cancelled."""
        self.blocked.add(execution)
        execution.connection.keep(execution)
        if execution.deadline is not None:
            self._arm(execution)

    def _run(self, execution: Execution | None) -> None:
        """Run a call, and then whatever waits; this is what the greenlets do."""
        while execution is not None:
            # A fresh context each, as the greenlet has run other callers' tasks before.
            Context().run(self._execute, execution)
            execution = self._next()
            if execution is not None:
                self._enter(execution, getcurrent())
                self._keep(execution)

    def _execute(self, execution: Execution) -> None:
        running_task.set(execution)
        task = execution.task
        args, kwargs = execution.bound
        try:
            if task.blocking:
                pool = self.reactor.hub.threadpool
                value = pool.apply(copy_context().run, (task.function, *args), kwargs)
            else:
                value = task.function(*args, **kwargs)
            reply = b"" if execution.is_notification else execution.result(value)
            failed = False
        except InternalError as error:
            log.error("%r: %s", execution, error.message)
            reply = execution.error(error)
            failed = True
        except BaseException as error:  # the edge to user code
            reply = execution.error(self._failure(execution, error))
            failed = True
        self._finish(execution, reply, failed)

    def _failure(self, execution: Execution, error: BaseException) -> TaskError:
        if isinstance(error, TaskTimeout | GreenletExit) and execution.is_answered:
            return TaskFailed()  # it ended as it was told to
        log.error("task %r failed", execution, exc_info=error)
        try:
            message = str(error)
        except Exception:  # a user's own __str__
            message = ""
        name = type(error).__name__
        return TaskFailed(f"{name}: {message}" if message else name, {"type": name, "message": message})

    def _finish(self, execution: Execution, reply: bytes, failed: bool) -> None:
        execution.is_done = True
        if execution.timer is not None:
            execution.timer.close()
            execution.timer = None
        self.blocked.discard(execution)
        if execution.kills <= KILLS:  # else it has been given up, and counted out, before
            self._leave(failed)
        if not execution.is_answered:
            execution.is_answered = True
            execution.connection.answer(execution, reply)

    def _leave(self, failed: bool) -> None:
        self.running -= 1
        self.gauge.finished(failed, self.running)

    # -- limits -------------------------------------------------------------------------------

    def _arm(self, execution: Execution) -> None:
        if execution.timer is not None:
            execution.timer.close()
        assert execution.deadline is not None
        delay = max(0.0, execution.deadline - monotonic())
        execution.timer = self.reactor.loop.timer(delay)
        execution.timer.start(self._expired, execution, update=True)

    def _expired(self, execution: Execution) -> None:
        waiting = execution.runner is None
        limit = f"{execution.function}: timed out"
        if waiting:
            self._refuse(execution, TaskTimedOut(f"{limit} before its turn came"))
        else:
            after = monotonic() - execution.started
            log.warning("task %r timed out after %.3g s", execution, after)
            self._refuse(execution, TaskTimedOut(f"{limit} after {after:.3g} s"))
            self._end(execution, TaskTimeout(limit))

    def _refuse(self, execution: Execution, error: TaskError) -> None:
        """Answer for a task instead of it."""
        if not execution.is_answered:
            execution.is_answered = True
            execution.connection.answer(execution, execution.error(error))
            self.serve_waiting_soon()

    def serve_waiting_soon(self) -> None:
        """A bare connection's next call may have come into the queue."""
        if self.waiting:
            self.reactor.loop.run_callback(self.serve_waiting)

    def _end(self, execution: Execution, how: BaseException) -> None:
        """Throw into a running task whose caller has been answered, until it ends."""
        if execution.is_done:
            return
        execution.runner.throw(how)
        if execution.is_done:
            return
        execution.kills += 1
        if execution.kills > KILLS:
            self._abandon(execution)
            return
        if execution.timer is not None:
            execution.timer.close()
        wait = CLEANUP_SECONDS if execution.kills == 1 else 1.0
        execution.timer = self.reactor.loop.timer(wait)
        execution.timer.start(self._end, execution, GreenletExit("time limit"), update=True)

    def _abandon(self, execution: Execution) -> None:
        log.error("task %r ignores its end; its turn is given to others", execution)
        self.blocked.discard(execution)
        self._leave(True)
        self.gauge.abandoned()
        self.serve_waiting()
        if self.on_abandoned is not None:
            self.on_abandoned(execution.function)

    # -- built-in functions -------------------------------------------------------------------

    def builtin(self, call: Execution) -> bytes:
        """The reply to a call of an unmarked name: one of ours, or unknown."""
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
        if self.is_draining:
            status = "draining"
        else:
            status = "busy" if self.running >= self.concurrency else "ready"
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
        if target.runner is not None:
            # Not from here: we may be inside the very batch that the task is in.
            self.reactor.loop.run_callback(self._end, target, GreenletExit("cancelled"))
        return True


def _started(execution: Execution) -> float:
    return execution.started


class TaskConnection(Stream):
    """One peer's calls, in either dialect.

    JSON-RPC calls run as they come. Bare ones, whose answers nothing but their order tells apart,
    run one after the other.
    """

    __slots__ = (
        "_address",
        "_backlog",
        "_bare",
        "_bare_queue",
        "_cork",
        "_decoder",
        "_has_ended",
        "_is_paused",
        "_kept",
        "_last_words",
        "_outstanding",
        "_replies",
        "_service",
        "_speaks_rpc",
        "last_active",
    )

    def __init__(self, service: TaskService, address: Any) -> None:
        Stream.__init__(self, service.reactor)
        self._service = service
        self._address = address
        self._decoder = TextDecoder(service.max_frame_bytes)
        self._backlog: deque[bytes] | None = None  # frames read, but not taken up yet
        self._bare: Execution | None = None  # the bare call that runs
        self._bare_queue: deque[Execution | bytes] | None = None
        self._kept: dict[Any, Execution] | None = None  # by id, what can be cancelled
        self._replies: list[bytes] = []
        self._cork = 0.0  # since when replies are collected; 0: they go out one by one
        self._outstanding = 0
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

    @property
    def outstanding(self) -> int:
        """Calls that were not answered yet."""
        return self._outstanding

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

    # -- reading ------------------------------------------------------------------------------

    def _received(self, data: bytes) -> None:
        frames = self._decoder.feed(data)
        if self._backlog:
            self._backlog.extend(frames)
        else:
            self._work(frames)

    def _work(self, frames: list[bytes]) -> None:
        """Take up frames until they are done, or others must have their turn."""
        now = self.last_active = self._cork = monotonic()
        turn = now + TURN_SECONDS
        left = len(frames)
        for frame in frames:
            self._take(frame)
            left -= 1
            if left and (self._outstanding >= MAX_OUTSTANDING or monotonic() > turn):
                self._backlog = deque(frames[-left:])
                break
        self._uncork()
        if self.state != State.OPEN:
            return
        if self._backlog:
            self._hold()
            if self._outstanding < MAX_OUTSTANDING:
                self._reactor.loop.run_callback(self._go_on)
        elif self._decoder.failed and not self._last_words:
            self._hold()
            self._last_words = protocol_error_reply(self._decoder.error())
            self._end_if_done()
        elif self._outstanding >= MAX_OUTSTANDING or self._buffered > self._service.max_send_buffer_bytes:
            self._hold()
        elif self._has_ended or self._service.is_draining:
            self._end_if_done()

    def _go_on(self) -> None:
        """Work off the backlog, or read on."""
        if self.state != State.OPEN or not self._is_paused or self._cork:
            return
        if self._backlog:
            frames, self._backlog = list(self._backlog), None
            self._is_paused = False
            self._work(frames)
            if self._is_paused or self.state != State.OPEN:
                return
        elif self._outstanding >= MAX_OUTSTANDING // 2 or self._decoder.failed or self._buffered:
            return
        self._is_paused = False
        if not self._has_ended:
            self._resume()

    def _hold(self) -> None:
        self._is_paused = True
        self._pause()

    def _take(self, frame: bytes) -> None:
        try:
            call = read_message(loads(frame), Execution)
        except ProtocolError as error:
            self._reply_in_turn(protocol_error_reply(error))
            return
        if type(call) is Execution:
            self._take_call(call)
        elif type(call) is list:
            self._take_batch(call)
        else:
            assert isinstance(call, InvalidCall)
            answer = call.error(call.problem)
            if call.dialect == BARE:
                self._reply_in_turn(answer)
            else:
                self._reply(answer)

    def _take_call(self, call: Execution) -> None:
        call.connection = self
        if call.dialect == BARE:
            if self._bare is not None:
                self._queue_bare(call)
                self._outstanding += 1
                return
        else:
            self._speaks_rpc = True
        self._outstanding += 1
        self._begin(call)

    def _begin(self, call: Execution) -> None:
        service = self._service
        task = service.tasks.get(call.function)
        if task is None:
            call.is_answered = True
            self.answer(call, service.builtin(call))
            return
        try:
            call.bound = task.bind(call.args)
        except BadArguments as error:
            call.is_answered = True
            self.answer(call, call.error(error))
            return
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        if call.dialect == BARE:
            self._bare = call
        service.submit(call)

    def _take_batch(self, messages: list[Any]) -> None:
        self._speaks_rpc = True
        if len(messages) > self._service.max_batch:
            self._reply(protocol_error_reply(batch_too_long(self._service.max_batch)))
            return
        batch = Batch(len(messages))
        for message in messages:
            call = read_message(message, Execution)
            if type(call) is Execution and call.dialect != BARE:
                call.batch = batch
                self._take_call(call)
                continue
            if not isinstance(call, InvalidCall):  # an array or a bare task inside a batch
                call = read_message(None)
            assert isinstance(call, InvalidCall)
            call.dialect = JSONRPC
            whole = batch.add(call.error(call.problem))
            if whole:
                self._reply(whole)

    # -- answering ----------------------------------------------------------------------------

    def answer(self, call: Execution, reply: bytes) -> None:
        """Send the one reply to `call`, and start the bare call that waited for it."""
        self._outstanding -= 1
        if self._kept is not None and self._kept.get(call.id) is call:
            del self._kept[call.id]
        if call.batch is not None:
            whole = call.batch.add(None if call.is_notification else reply)
            if whole is not None:
                self._reply(whole)
        elif not call.is_notification:
            self._reply(reply)
        if call is self._bare:
            self._bare = None
            if self._bare_queue:
                self._next_bare()
        if self._is_paused or self._has_ended or self._service.is_draining or self._last_words:
            self._reactor.loop.run_callback(self._settle)

    def _settle(self) -> None:
        self._go_on()
        self._end_if_done()

    def _reply(self, line: bytes) -> None:
        if self.state != State.OPEN:
            return
        if self._cork:
            self._replies.append(line)
            if len(self._replies) > 1 and monotonic() - self._cork > CORK_SECONDS:
                self._flush()
                self._cork = monotonic()
        else:
            self._write(line + b"\n")

    def _uncork(self) -> None:
        self._cork = 0.0
        if self._replies:
            self._flush()

    def _flush(self) -> None:
        replies = self._replies
        if self.state == State.OPEN:
            if len(replies) == 1:
                self._write(replies[0] + b"\n")
            else:
                replies.append(b"")
                self._write(b"\n".join(replies))
        replies.clear()

    def _reply_in_turn(self, line: bytes) -> None:
        """Answer what has no dialect after the bare calls that came before it."""
        if self._bare is None:
            self._reply(line)
        else:
            self._queue_bare(line)

    def _queue_bare(self, item: Execution | bytes) -> None:
        if self._bare_queue is None:
            self._bare_queue = deque()
        self._bare_queue.append(item)

    def _next_bare(self) -> None:
        """Go on with the queued bare calls until one of them has to be run.

        It is put before all others that wait; who called us serves the queue.
        """
        queue = self._bare_queue
        while queue and self._bare is None:
            item = queue.popleft()
            if isinstance(item, bytes):
                self._reply(item)
            else:
                self._begin_queued(item)

    def _begin_queued(self, call: Execution) -> None:
        service = self._service
        task = service.tasks.get(call.function)
        try:
            if task is not None:
                call.bound = task.bind(call.args)
        except BadArguments as error:
            self._answer_queued(call, call.error(error))
            return
        if task is None:
            self._answer_queued(call, service.builtin(call))
            return
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        self._bare = call
        service.waiting.appendleft(call)
        service.serve_waiting_soon()

    def _answer_queued(self, call: Execution, reply: bytes) -> None:
        call.is_answered = True
        self._outstanding -= 1
        self._reply(reply)

    def send_progress(self, line: bytes) -> None:
        """Progress is news, not data: it is dropped while the peer reads too slowly."""
        if self._buffered < self._service.max_send_buffer_bytes:
            self._reply(line)

    def keep(self, call: Execution) -> None:
        """Make `call` findable by its id."""
        if call.id is not None:
            if self._kept is None:
                self._kept = {}
            self._kept[call.id] = call

    def find(self, id: str | int) -> Execution | None:
        """The call of that id, if it is waiting or running."""
        return self._kept.get(id) if self._kept is not None else None

    # -- ending -------------------------------------------------------------------------------

    def say_goaway(self) -> None:
        """Tell a peer that speaks JSON-RPC to call elsewhere."""
        if self._speaks_rpc:
            self._reply(notification("gtask.goaway", {}))
        self.last_active = monotonic()

    def end_if_idle(self, since: float) -> None:
        """Close a connection without calls that has said nothing after `since`."""
        if self._outstanding == 0 and not self._backlog and self.last_active < since:
            self._close("draining" if self._service.is_draining else "idle for too long")

    def _ended(self) -> None:
        # The peer has closed its half: what it asked for before is still answered.
        self._has_ended = True
        self._end_if_done()

    def _flushed(self) -> None:
        if self._is_paused:
            self._go_on()

    def _end_if_done(self) -> None:
        if self._outstanding or self._backlog or self._cork or self.state != State.OPEN:
            return
        if self._last_words:
            self._write(self._last_words + b"\n")
            self._close("frame too long", linger=True)
        elif self._has_ended:
            self._close("closed by the peer")
        elif self._service.is_draining and not self._speaks_rpc:
            # Between two calls: the one answered last was read after the drain began.
            self._close("draining", linger=True)

    def _closed(self, reason: str) -> None:
        self._backlog = self._bare_queue = self._kept = None
        self._service.connections.discard(self)
        self._service.gauge.closed(self.bytes_read, self.bytes_written)
        log.debug("%r closed: %s", self, reason)
