"""`TaskConnection`: from frames to tasks to replies.

A greenlet parses the frames of a read and runs their tasks one after the other. Most tasks do not
block: they are over when the hub gets the CPU back, so they need no timer for their time limit and
no entry anywhere. When one blocks, the hub gets the CPU back in the middle of it: that call becomes
an `Execution`, with a timer, that can be found and cancelled, and the frames behind it are given to
the next greenlet. Only frames of JSON-RPC calls are run beside each other.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from greenlet import GreenletExit

from ..binding import TaskFunction
from ..errors import (
    BadArguments,
    InternalError,
    Overloaded,
    ProtocolError,
    TaskError,
    TaskFailed,
    TaskTimeout,
)
from ..net.stream import OPEN
from ..protocols.jsontext import CALL_BYTES, dumps, loads, weight_of
from ..protocols.messages import (
    BARE,
    JSONRPC,
    NO_ARGS,
    Call,
    InvalidCall,
    batch_too_long,
    protocol_error_reply,
    read_message,
)
from .builtins import call_builtin
from .execution import Batch, Execution, failure_of, log_error
from .pace import PacedConnection
from .replies import CORK_BYTES
from .task_greenlet import TaskGreenlet
from .threads import NoThread
from .turns import no_room

ROUND_SECONDS: Final = 0.005  # what one connection may take before others have theirs
CORK_SECONDS: Final = 0.001  # what a reply may wait for the next one
LIGHT_BYTES: Final = 4096  # of a frame whose call may come in whatever others hold
MOST_WEIGHT: Final = 72  # for each byte of a frame: above what `weight_of` gives for any


class TaskConnection(PacedConnection):
    """One peer's calls, in either dialect."""

    __slots__ = ()

    # -- in the hub: which greenlet does what -------------------------------------------------

    def work(self, greenlet: TaskGreenlet) -> bool:
        """Have the inbox worked off, until it is empty or others must have their turn.

        Returns:
            False if a call has blocked, and the hub has gone on with what was behind it.
        """
        greenlet.connection = self
        may_be_held = self._outstanding or self._output is not None or self._pending_bytes
        is_held_back = may_be_held and self.is_held_back()
        if not self._inbox or is_held_back or self.state is not OPEN:
            return True  # since it was put in the queue, it was worked off, held back or closed
        now = self.last_active = self.corked_since = monotonic()
        self.engine.stats.enter(now)
        if not self._take_up(greenlet):
            return False
        self.end_work()
        return True

    def go_on_without(self, greenlet: TaskGreenlet) -> None:
        """The greenlet's call has blocked: what is behind it is given to the next. Hub only."""
        until = monotonic() + ROUND_SECONDS
        while True:
            if not greenlet.is_parked:
                self._let_run(greenlet)
            if not self._inbox or self.is_held_back() or monotonic() > until:
                break
            greenlet = self.engine.ready.greenlet()
            greenlet.connection = self
            greenlet.switch(self._take_up)
        self.end_work()

    def run_waiting(self, call: Execution) -> None:
        """A turn has become free for a call that waited. Hub only."""
        self.engine.start(call, self._run_held, self._let_run)

    def _let_run(self, greenlet: TaskGreenlet) -> None:
        """The greenlet's call has blocked, and has a turn from now on."""
        greenlet.has_blocked = True
        call = greenlet.current()
        if not call.weight:
            call.weight = weight_of(greenlet.frame)
        greenlet.frame = b""
        self.hold(call)
        call.greenlet = greenlet
        self.engine.turns.take(call)
        self.engine.limits.keep(call)

    # -- in a greenlet: one frame after the other ---------------------------------------------

    def _take_up(self, greenlet: TaskGreenlet) -> bool:
        """Parse and run calls until the inbox is empty or the time is up.

        Returns False if one has blocked: the hub has then given the inbox to somebody else.
        """
        turns = self.engine.turns
        inbox = self._inbox
        replies = self._replies
        max_bytes = self.engine.max_frame_bytes
        greenlet.started = self.corked_since
        until = self.corked_since + ROUND_SECONDS
        while inbox:
            try:
                frame = greenlet.frame = inbox.pop()
                message = loads(frame)
            except ProtocolError as error:
                self.reply(protocol_error_reply(error))
                continue
            task = self._read_plain(message, greenlet)
            if (
                task is None
                or turns.running >= turns.concurrency
                or turns.is_closed
                or (self._inbox_bytes > LIGHT_BYTES and len(frame) > LIGHT_BYTES)
            ):
                self._take_slowly(message, greenlet)
            else:
                reply = self._run_plain(task, greenlet)
                size = len(reply)
                if size > max_bytes:
                    reply = self.fit(greenlet.current(), reply)
                if greenlet.execution is not None:
                    self._conclude(greenlet.execution, reply)
                    greenlet.execution = None
                elif inbox or replies:
                    replies.append(reply)
                    self._reply_bytes += size
                    if self._reply_bytes > CORK_BYTES:
                        self.send_replies()
                elif self.state is OPEN:
                    self._write(reply + b"\n")
            if greenlet.has_blocked:
                greenlet.has_blocked = False
                return False
            may_be_held = self._outstanding or self._output is not None or self._pending_bytes
            if may_be_held and self.is_held_back():
                break  # by a call that waits for its turn, or by answers that are not taken
            if inbox:
                now = greenlet.started = monotonic()
                if now > self.corked_since + CORK_SECONDS and replies:
                    self.send_replies()
                    self.corked_since = now
                if now > until:
                    break
            if greenlet.is_spent:
                break
        return True

    def _read_plain(self, message: Any, greenlet: TaskGreenlet) -> TaskFunction | None:
        """The task, where a message is of the plain form of either dialect.

        Its arguments, id and dialect are then the greenlet's. That does without `read_message` and
        an object for the call, and halves the cost of a small task.
        """
        function: Any = None
        args: Any = None
        if type(message) is dict:
            if "jsonrpc" not in message:
                greenlet.dialect = BARE
                if "timeout" not in message:
                    function, args = message.get("function"), message.get("args", NO_ARGS)
            elif message["jsonrpc"] == "2.0":
                greenlet.dialect = JSONRPC
                args, id = message.get("params", NO_ARGS), message.get("id")
                if type(id) is int or type(id) is str:
                    function = message.get("method")
                    greenlet.id = id
                if not self._speaks_rpc:
                    self.hear_rpc()
        if type(function) is not str or (type(args) is not dict and type(args) is not list):
            return None
        greenlet.args = args
        return self.engine.tasks.get(function)

    def _run_plain(self, task: TaskFunction, greenlet: TaskGreenlet) -> bytes:
        """Run a call that is no object; returns its reply."""
        greenlet.task = task
        greenlet.function = task.name
        if greenlet.dialect == BARE:
            greenlet.id = None
        try:
            positional, keywords = task.bind(greenlet.args)
        except BadArguments as error:
            call = Call(task.name, greenlet.args, greenlet.id, greenlet.dialect, False)
            return call.error(error)
        return self._run(greenlet, positional, keywords, None)

    def _run(
        self,
        greenlet: TaskGreenlet,
        positional: list[Any],
        keywords: dict[str, Any],
        call: Execution | None,
    ) -> bytes:
        """Run the greenlet's task, for `call` if that is an object; returns the reply."""
        task = greenlet.task
        stats = self.engine.stats
        stats.done += 1
        if stats.number != task.number:
            stats.number = stats.executing[0] = task.number
        try:
            if task.blocking:
                value = self.engine.threads.run_task(greenlet, positional, keywords)
            elif keywords:
                value = task.function(*positional, **keywords)
            elif len(positional) == 1:
                value = task.function(positional[0])  # without a tuple
            else:
                value = task.function(*positional)
        except BaseException as error:  # the edge to user code
            return self._failed(greenlet, error)
        finally:
            if len(greenlet.context) > 1 or greenlet.locals:
                greenlet.forget_call()
        try:
            if call is not None:
                return b"" if call.is_notification else call.result(value)
            if greenlet.dialect == BARE:
                return dumps(value)
            return b'{"jsonrpc":"2.0","result":%b,"id":%b}' % (dumps(value), dumps(greenlet.id))
        except InternalError as error:
            return self._unwritten(greenlet.current(), error)

    def _unwritten(self, call: Execution, error: InternalError) -> bytes:
        """The reply for a task whose result is not JSON."""
        self.engine.stats.failed()
        log_error("task %r: %s", call, error.message)
        return call.error(error)

    def _failed(self, greenlet: TaskGreenlet, error: BaseException) -> bytes:
        """The reply for a task that has raised `error`."""
        if greenlet.locals:
            greenlet.end_if_forked(error)
        call = greenlet.current()
        self.engine.stats.failed()
        failure: TaskError
        if isinstance(error, NoThread):
            failure = Overloaded("all threads of blocking tasks are stuck", {"retry_after": 1.0})
        elif call.is_answered and isinstance(error, TaskTimeout | GreenletExit):
            failure = TaskFailed()  # it ended as it was told to
        else:
            failure = failure_of(call, error)
        return call.error(failure)

    def _conclude(self, call: Execution, reply: bytes) -> None:
        """A call that is an object has ended."""
        call.is_done = True
        call.stop_timer()
        self.engine.turns.give_back(call)
        self.let_go(call)
        if not call.is_answered:
            self.answer(call, reply)

    def _run_held(self, greenlet: TaskGreenlet) -> None:
        """Run a call that is an object already."""
        call = greenlet.current()
        positional, keywords = call.bound
        self._conclude(call, self._run(greenlet, positional, keywords, call))
        greenlet.has_blocked = False

    # -- in a greenlet: messages of any other form --------------------------------------------

    def _take_slowly(self, message: Any, greenlet: TaskGreenlet) -> None:
        """Take up any message there can be."""
        call = read_message(message, Execution)
        if type(call) is Execution:
            self._take_call(call, greenlet)
        elif type(call) is list:
            self._take_batch(call, weight_of(greenlet.frame))
        else:
            assert isinstance(call, InvalidCall)
            self.reply(self.fit(call, call.error(call.problem)))

    def _take_call(self, call: Execution, greenlet: TaskGreenlet) -> None:
        turns, frame = self.engine.turns, greenlet.frame
        # To weigh a long frame takes as long as to run its task: only where it could matter.
        if not turns.has_room(CALL_BYTES + len(frame) * MOST_WEIGHT):
            call.weight = weight_of(frame)
        if not self._prepare(call):
            return
        if turns.running >= turns.concurrency or turns.is_closed:
            call.weight = call.weight or weight_of(frame)
            self._wait_for_turn(call)
            return
        greenlet.execution = call
        greenlet.task = call.task
        call.set_limit(monotonic(), self.engine.task_timeout)
        self._conclude(call, self._run(greenlet, *call.bound, call))
        greenlet.execution = None

    def _prepare(self, call: Execution) -> bool:
        """Find the call's task and bind its arguments; if that cannot be, it is answered."""
        call.connection = self
        if call.dialect != BARE and not self._speaks_rpc:
            self.hear_rpc()
        task = self.engine.tasks.get(call.function)
        if task is None:
            if not self._ask_store(call):
                self.answer_at_once(call, call_builtin(call, self.engine))
            return False
        try:
            call.bound = task.bind(call.args)
        except BadArguments as error:
            self.answer_at_once(call, call.error(error))
            return False
        if call.weight > LIGHT_BYTES and not self.engine.turns.has_room(call.weight):
            self.answer_at_once(call, call.error(no_room()))
            return False
        call.task = task
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
        return True

    def _ask_store(self, call: Execution) -> bool:
        """Have a store answer what it is asked for; false if the call is none of these."""
        queues = self.engine.queues
        if queues is None or not queues.is_asked(call):
            return False
        self.hold(call)
        if call.timeout is not None:
            call.deadline = monotonic() + call.timeout
            self.engine.limits.keep(call)
        queues.ask(call)
        return True

    def _wait_for_turn(self, call: Execution) -> None:
        if self.engine.turns.wait(call):
            self.hold(call)
            self.engine.limits.keep(call)

    def _take_batch(self, messages: list[Any], weight: int) -> None:
        if not self._speaks_rpc:
            self.hear_rpc()
        if len(messages) > self.engine.max_batch:
            self.reply(protocol_error_reply(batch_too_long(self.engine.max_batch)))
            return
        batch = Batch(len(messages), self.engine.max_frame_bytes)
        calls = [read_message(message, Execution) for message in messages]
        for call in calls:
            if type(call) is Execution and call.dialect != BARE:
                call.batch = batch
                call.weight = weight // len(messages)
                self._take_batched(call)
                continue
            if not isinstance(call, InvalidCall):  # an array or a bare task inside a batch
                call = read_message(None)
            assert isinstance(call, InvalidCall)
            call.dialect = JSONRPC
            self.add_to_batch(batch, call, call.error(call.problem))

    def _take_batched(self, call: Execution) -> None:
        """One call of a batch, through the queue: the others do not wait for it, if it blocks."""
        if self._prepare(call):
            self._wait_for_turn(call)
            self.engine.turns.serve_waiting_soon()
