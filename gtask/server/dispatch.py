"""From frames to tasks to replies: what a `TaskConnection` does with what it reads.

The hub cuts a read into frames and switches into a pooled greenlet, which parses them and runs
their tasks one after the other; where many connections have something at a time, the hub reads them
first, and one greenlet serves them. Most tasks do not block: they are over when the hub
gets the CPU back, so they need no timer for their time limit and no entry anywhere. When one
blocks, the hub gets the CPU back in the middle of it: that call becomes an `Execution`, with a
timer, that can be found and cancelled, and the frames behind it are given to the next greenlet.
Replies that are made while one read is worked off go out in one send.

Only frames of a JSON-RPC call are run beside each other. Bare calls, whose answers nothing but
their order tells apart, hold back what comes behind them on their connection.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from greenlet import GreenletExit

from ..address import format_address
from ..binding import TaskFunction
from ..errors import BadArguments, InternalError, ProtocolError, TaskError, TaskFailed, TaskTimeout
from ..net.poller import PolledStream, Poller
from ..net.stream import OPEN, State
from ..protocols.jsontext import dumps, loads
from ..protocols.messages import (
    BARE,
    JSONRPC,
    NO_ARGS,
    Call,
    InvalidCall,
    Opening,
    batch_too_long,
    notification,
    protocol_error_reply,
    read_message,
)
from ..protocols.text import TextDecoder
from ..tasks import running_task
from .execution import Batch, Execution, failure_of
from .turns import Turn

if TYPE_CHECKING:
    from .service import TaskService

log = logging.getLogger("gtask.tasks")

MAX_OUTSTANDING: Final = 1000  # blocked or waiting calls of one connection; past it, it is not read
TURN_SECONDS: Final = 0.005  # what one connection may take before others have theirs
CORK_SECONDS: Final = 0.001  # what a reply may wait for the next one

_EMPTY: Final[list[bytes]] = []  # never added to


class TaskConnection(PolledStream):
    """One peer's calls, in either dialect."""

    __slots__ = (
        "_address",
        "_bare",
        "_cork",
        "_decoder",
        "_has_ended",
        "_inbox",
        "_kept",
        "_last_words",
        "_opening",
        "_outstanding",
        "_replies",
        "_speaks_rpc",
        "_usual",
        "last_active",
        "service",
    )

    def __init__(self, service: TaskService, poller: Poller, address: Any) -> None:
        PolledStream.__init__(self, service.reactor, poller)
        self.service = service
        self._address = address
        self._decoder = TextDecoder(service.max_frame_bytes)
        self._inbox: list[bytes] = _EMPTY  # frames that were not taken up yet, the first one last
        self._bare: Execution | None = None  # the bare call that holds back what comes behind it
        self._kept: dict[Any, Execution] | None = None  # by id, what can be cancelled
        self._replies: list[bytes] = []
        self._cork = 0.0  # since when replies are collected; 0: they go out one by one
        self._outstanding = 0  # calls that have blocked or wait for a turn
        self._usual: TaskFunction | None = None  # the bare task that was called last ...
        self._opening: Opening | None = None  # ... and how the frame began
        self._has_ended = False
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
            self.service.enqueue(self)
        if self._decoder.failed and not self._last_words:
            self._last_words = protocol_error_reply(self._decoder.error())
            self._settle()

    def work(self, turn: Turn) -> bool:
        """Have the inbox worked off, until it is empty or others must have their turn.

        Returns:
            False if a call has blocked, and the hub has gone on with what was behind it.
        """
        turn.connection = self
        if not self._inbox or self._bare is not None or self.state is not OPEN:
            return True  # since it was put in the queue, it was worked off, held back or closed
        now = self.last_active = self._cork = monotonic()
        self.service.gauge.enter(now)
        if not self._take_up(turn):
            return False
        self.end_work()
        return True

    def go_on_without(self, turn: Turn) -> None:
        """The turn's call has blocked: what is behind it is given to the next greenlet. Hub only."""
        service = self.service
        until = monotonic() + TURN_SECONDS
        while True:
            if not turn.is_over:
                self._detach(turn)
            if not self._inbox or self._bare is not None:
                break
            if self._outstanding >= MAX_OUTSTANDING or monotonic() > until:
                break
            turn = service.spare_turn()
            turn.connection = self
            turn.switch(self._take_up)
        self.end_work()

    def end_work(self) -> None:
        """Send the replies, and see how to go on."""
        self._cork = 0.0
        if self._replies:
            self._flush()
        if (
            self._inbox
            or self._outstanding
            or self._is_deaf
            or self._has_ended
            or self.service.is_draining
        ):
            self._settle()
        elif self._output is not None and len(self._output) > self.service.max_send_buffer_bytes:
            self._pause()

    def run_waiting(self, execution: Execution) -> None:
        """A turn has become free for a call that waited."""
        service = self.service
        turn = service.spare_turn()
        turn.connection = self
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

    def _take_up(self, turn: Turn) -> bool:
        """Parse and run calls until the inbox is empty or the time is up.

        Returns False if one has blocked: the hub has then given the inbox to somebody else.
        """
        service = self.service
        inbox = self._inbox
        replies = self._replies
        turn.started = self._cork
        until = self._cork + TURN_SECONDS
        while inbox:
            try:
                message, task, args, id, dialect = self._read(inbox.pop())
            except ProtocolError as error:
                self._reply(protocol_error_reply(error))
                continue
            if task is None or service.running >= service.concurrency or service.is_stopping:
                if message is None and task is not None:
                    message = {"function": task.name, "args": args}
                self._take_slowly(message, turn)
            else:
                turn.task = task
                turn.function = task.name
                turn.args = args
                turn.id = id
                turn.dialect = dialect
                try:
                    positional, keywords = task.bind(args)
                except BadArguments as error:
                    reply = Call(task.name, args, id, dialect, False).error(error)
                else:
                    reply = self._run(turn, positional, keywords, None)
                if turn.execution is not None:
                    self._conclude(turn.execution, reply)
                    turn.execution = None
                elif inbox or replies:
                    replies.append(reply)
                elif self.state is OPEN:
                    self._write(reply + b"\n")
            if turn.is_detached:
                turn.is_detached = False
                return False
            if self._bare is not None:
                break  # it waits for a turn of its own, and what is behind it waits for it
            if inbox:
                now = turn.started = monotonic()
                if now > self._cork + CORK_SECONDS and replies:
                    self._flush()
                    self._cork = now
                if now > until:
                    break
        return True

    def _read(self, frame: bytes) -> tuple[Any, TaskFunction | None, Any, Any, int]:
        """The message in a frame; of the plain forms of both dialects, the task, arguments and id.

        These are told without `read_message` and an object for the call: that halves the cost of
        a small task. A bare task that is called a third time is told by how its frame begins:
        only its arguments are parsed, and there is no message.

        Raises:
            ProtocolError: it is not JSON.
        """
        opening = self._opening
        if opening is not None:
            known = opening.read(frame)
            if type(known) is dict or type(known) is list:
                return None, self._usual, known, None, BARE
        message = loads(frame)
        function: Any = None
        args: Any = None
        id: Any = None
        dialect = BARE
        if type(message) is dict:
            if "jsonrpc" not in message:
                if "timeout" not in message:
                    function, args = message.get("function"), message.get("args", NO_ARGS)
            elif message["jsonrpc"] == "2.0":
                args, id, dialect = message.get("params", NO_ARGS), message.get("id"), JSONRPC
                if type(id) is int or type(id) is str:
                    function = message.get("method")
                if not self._speaks_rpc:
                    self._hear_rpc()
        if type(function) is not str or (type(args) is not dict and type(args) is not list):
            return message, None, None, None, dialect
        task = self.service.tasks.get(function)
        if task is not None and dialect == BARE:
            self._opening = None
            if task is not self._usual:
                self._usual = task
            elif len(message) == 2:
                for opening in self.service.openings[function]:
                    if opening.read(frame) is not None:
                        self._opening = opening
                        break
        return message, task, args, id, dialect

    def _run(
        self,
        turn: Turn,
        positional: list[Any],
        keywords: dict[str, Any],
        call: Execution | None,
    ) -> bytes:
        """Run the turn's task, for `call` if that is an object; returns the reply to its caller."""
        task = turn.task
        gauge = self.service.gauge
        gauge.done += 1
        if gauge.number != task.number:
            gauge.number = gauge.executing[0] = task.number
        try:
            if task.blocking:
                value = self._run_in_thread(turn, positional, keywords)
            else:
                if keywords:
                    value = task.function(*positional, **keywords)
                elif len(positional) == 1:
                    value = task.function(positional[0])  # without a tuple
                else:
                    value = task.function(*positional)
            if call is not None:
                return b"" if call.is_notification else call.result(value)
            if turn.dialect == BARE:
                return dumps(value)
            return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (dumps(value), dumps(turn.id))
        except InternalError as error:
            log.error("task %r: %s", turn.current(), error.message)
            return self._failed(turn, error)
        except BaseException as error:  # the edge to user code
            execution = turn.current()
            if execution.is_answered and isinstance(error, TaskTimeout | GreenletExit):
                return self._failed(turn, TaskFailed())  # it ended as it was told to
            return self._failed(turn, failure_of(execution, error))
        finally:
            if len(turn.context) > 1:  # the next call has nothing to do with what this one has set
                turn.renew_context()

    def _failed(self, turn: Turn, error: TaskError) -> bytes:
        self.service.gauge.failed()
        return turn.current().error(error)

    def _run_in_thread(self, turn: Turn, positional: Any, keywords: Any) -> Any:
        execution = turn.current()
        function = turn.task.function

        def run() -> tuple[Any, BaseException | None]:
            running_task.set(lambda: execution)  # it may outlive the turn, if it times out
            try:
                return function(*positional, **keywords), None
            except BaseException as error:  # whatever it is: it must not end the thread
                return None, error

        value, error = self._reactor.hub.threadpool.apply(turn.context.copy().run, (run,))
        if error is not None:
            raise error
        return value

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
            self._take_batch(call)
        else:
            assert isinstance(call, InvalidCall)
            self._reply(call.error(call.problem))

    def _prepare(self, call: Execution) -> bool:
        """Find the call's task and bind its arguments; if that cannot be, it is answered."""
        service = self.service
        call.connection = self
        if call.dialect != BARE and not self._speaks_rpc:
            self._hear_rpc()
        task = service.tasks.get(call.function)
        if task is None:
            self._answer_now(call, service.builtin(call))
            return False
        try:
            call.bound = task.bind(call.args)
        except BadArguments as error:
            self._answer_now(call, call.error(error))
            return False
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        return True

    def _take_call(self, call: Execution, turn: Turn) -> None:
        if not self._prepare(call):
            return
        service = self.service
        if service.running >= service.concurrency or service.is_stopping:
            self._keep(call)
            service.wait_for_turn(call)
            return
        turn.execution = call
        turn.task = call.task
        call.set_limit(monotonic(), service.task_timeout)
        self._conclude(call, self._run(turn, *call.bound, call))
        turn.execution = None

    def _hear_rpc(self) -> None:
        """The peer turns out to speak JSON-RPC, so it understands a goaway it was not sent."""
        self._speaks_rpc = True
        if self.service.is_draining:
            self.say_goaway()

    def _take_batch(self, messages: list[Any]) -> None:
        if not self._speaks_rpc:
            self._hear_rpc()
        if len(messages) > self.service.max_batch:
            self._reply(protocol_error_reply(batch_too_long(self.service.max_batch)))
            return
        batch = Batch(len(messages))
        calls = [read_message(message, Execution) for message in messages]
        for call in calls:
            if type(call) is Execution and call.dialect != BARE:
                call.batch = batch
                self._take_batched(call)
                continue
            if not isinstance(call, InvalidCall):  # an array or a bare task inside a batch
                call = read_message(None)
            assert isinstance(call, InvalidCall)
            call.dialect = JSONRPC
            whole = batch.add(call.error(call.problem))
            if whole:
                self._reply(whole)

    def _take_batched(self, call: Execution) -> None:
        """One call of a batch, through the queue: the others do not wait for it, if it blocks."""
        if self._prepare(call):
            self._keep(call)
            self.service.wait_for_turn(call)
            self.service.serve_waiting_soon()

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
        if self.state is not OPEN:
            return
        if not self._cork:
            self._write(line + b"\n")
        else:
            self._replies.append(line)

    def _flush(self) -> None:
        replies = self._replies
        if len(replies) == 1:
            data = replies.pop() + b"\n"
        else:
            replies.append(b"")
            data = b"\n".join(replies)
            replies.clear()
        if self.state is OPEN:
            self._write(data)

    def send_progress(self, line: bytes) -> None:
        """Progress is news, not data: it is dropped while the peer reads too slowly."""
        if self._buffered < self.service.max_send_buffer_bytes:
            self._reply(line)

    # -- pace, and the end --------------------------------------------------------------------

    def _settle(self) -> None:
        """Work on, read on, hold back or close, as things stand now. Hub only."""
        if self.state is not OPEN or self._cork:
            return
        if self._bare is not None or self._outstanding >= MAX_OUTSTANDING:
            if self._inbox:
                self._pause()
        elif self._inbox:
            self._pause()
            self.service.postpone(self)
        elif self._last_words or self._has_ended:
            self._end_if_done()
        elif self._buffered > self.service.max_send_buffer_bytes:
            self._pause()
        else:
            self._resume()
            if self.service.is_draining:
                self._end_if_done()

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
        if self._outstanding or self._inbox or self._cork or self.state is not OPEN:
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
