"""`QueueSide`: what a worker process does for the queues of its stores: runs what it is dealt, tells the ends.

A durable task is run as any call is: it has a turn while it is blocked, and its limits are kept. What it cannot begin
at once, as direct calls have taken the turns meanwhile, it gives back after a second.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from greenlet import GreenletExit

from ...binding import TaskFunction
from ...errors import STORE_UNAVAILABLE, BadArguments, TaskCancelled, TaskError, TaskTimedOut
from ...logs.loggers import get_logger
from ...queue.owners import own_identity
from ...queue.states import Event
from ...store_address import StoreAddress
from ..engine import Engine, native_thread_id
from ..execution import Execution, log_error
from ..task_greenlet import TaskGreenlet
from ..threads import NoThread
from .link import Link
from .run import Run

log = get_logger("gtask.store")

GIVE_BACK_SECONDS = 1.0  # that a task which was dealt may wait for its turn here


class QueueSide:
    """The side of one store.

    Args:
        places: durable tasks that this process may hold.

    Attributes:
        runs: what the store has dealt and what has not ended yet, by fence.
        ends: what has ended and is not written down yet, by fence.
    """

    peer = "queue"

    def __init__(self, engine: Engine, store: StoreAddress, places: int) -> None:
        self.engine = engine
        self.store = store
        self.runs: dict[int, Run] = {}
        self.ends: dict[int, list[Any]] = {}
        self._places = places
        self._capacity = 0  # as it was told last
        self._loss = ""  # what becomes of what a drain does not finish
        self._to_tell: list[list[Any]] = []
        self.link = Link(engine.reactor, store, self._join, self._hear)

    @property
    def is_stopping(self) -> bool:
        """The process is to end."""
        return bool(self._loss) or self.engine.is_draining

    @property
    def is_idle(self) -> bool:
        """Nothing runs, and all ends are written down."""
        return not self.runs and not self.ends

    # -- the process's life -------------------------------------------------------------------

    def start(self, is_teller: bool) -> None:
        """Begin to take tasks; `is_teller`: tell the operator if the store cannot be reached."""
        self.link.start(is_teller)

    def drain(self, loss: str) -> None:
        """Take no more; `loss` is what becomes of what does not finish."""
        if not self._loss:
            self._loss = loss
            self.link.tell("store.drain", loss=loss)
            for run in self._queued():
                self._give_back(run)

    def stop(self) -> None:
        """The drain's time is up: what still runs is interrupted, or lost."""
        self.drain(Event.INTERRUPTED.value)
        for run in list(self.runs.values()):
            if isinstance(run.cut_by, TaskTimedOut):
                self._has_ended(run, run.raised(run.cut_by))
            elif self._loss == Event.INTERRUPTED.value:
                self._has_ended(run, run.interrupted())
        self._tell_ends()
        self.link.flush()

    def close(self) -> None:
        self.link.close()

    def after_fork_in_child(self) -> None:
        """User code has forked this process off: the tasks are the worker's."""
        self.link.after_fork_in_child()

    def beat(self) -> None:
        """About four times a second: tell how much can be held, give back what cannot begin."""
        since = monotonic() - GIVE_BACK_SECONDS
        for run in self._queued():
            if run.started < since:
                self._give_back(run)
        self._tell_capacity()

    def _queued(self) -> list[Run]:
        """Tasks of this store that wait for a turn here."""
        queued = self.engine.turns.queued
        return [run for run in queued if isinstance(run, Run) and run.connection is self]

    # -- the wire -----------------------------------------------------------------------------

    def _join(self) -> None:
        """There is a connection: say who we are, and what we hold."""
        one = own_identity()
        self._capacity = self._can_hold()
        params = {
            "identity": [one.boot_id, one.pid_namespace, one.pid, one.start_time],
            "queue": self.store.queue,
            "capacity": self._capacity,
            "functions": {name: self._terms(task) for name, task in self.engine.tasks.items()},
            "holds": [*self.runs, *self.ends],
            "loss": self._loss,
        }
        self.link.ask("store.join", params, self._joined)

    def _terms(self, task: TaskFunction) -> list[Any]:
        timeout = self.engine.task_timeout if task.timeout is None else task.timeout
        return [task.retries, task.retry_delay, task.max_retry_delay, task.result_ttl, timeout]

    def _joined(self, answer: Any) -> None:
        if isinstance(answer, TaskError):
            if answer.code == STORE_UNAVAILABLE and answer.data.get("accepted") != "unknown":
                self.link.not_joined(answer)  # else the connection has ended
            return
        self.link.joined()
        for fence in answer["stop"]:
            self.ends.pop(fence, None)
            self._cancel(fence)
        self._to_tell = list(self.ends.values())
        self._tell_ends()
        self._tell_capacity()

    def _hear(self, method: str, params: dict[str, Any]) -> None:
        if method == "store.deal":
            for dealt in params["tasks"]:
                self._take(Run(dealt))
        elif method == "store.ended":
            for fence in [*params["fences"], *params["refused"]]:
                self.ends.pop(fence, None)
            self._tell_capacity()
        elif method == "store.stop":
            for fence in params["fences"]:
                self._cancel(fence)

    def _can_hold(self) -> int:
        """How many tasks, those that are held included, can have turns now."""
        if self._loss or self.engine.threads.are_used_up:
            return 0
        turns = self.engine.turns
        held = len(self.runs) + len(self.ends)
        direct = turns.running - sum(run.has_turn for run in self.runs.values())
        room = turns.concurrency - direct - turns.waits
        # With all turns taken by direct calls, one task waits here for the eighth that is free.
        return min(self._places, max(room, held, 1))

    def _tell_capacity(self) -> None:
        capacity = self._can_hold()
        if capacity != self._capacity and self.link.is_up:
            self._capacity = capacity
            self.link.tell("store.capacity", capacity=capacity)

    # -- runs ---------------------------------------------------------------------------------

    def _take(self, run: Run) -> None:
        """A task was dealt: start it, or have it wait for a turn."""
        run.connection = self
        task = self.engine.tasks.get(run.function)
        run.started = monotonic()
        self.runs[run.fence] = run
        if self._loss or task is None:
            self._give_back(run)
            return
        run.task = task
        turns = self.engine.turns
        if turns.is_full or turns.is_closed:
            turns.queued.append(run)
        else:
            self.run_waiting(run)

    def _give_back(self, run: Run) -> None:
        """It was not begun: another process may, at no cost."""
        if run in self.engine.turns.queued:
            self.engine.turns.queued.remove(run)
        self._has_ended(run, run.not_begun())

    def run_waiting(self, call: Execution) -> None:
        """There is a turn for the task. Hub only."""
        self.engine.start(call, self._run, self._let_run)

    def _let_run(self, greenlet: TaskGreenlet) -> None:
        """The greenlet's task has blocked, and has a turn from now on."""
        greenlet.has_blocked = True
        call = greenlet.current()
        call.greenlet = greenlet
        self.engine.turns.take(call)
        self.engine.limits.keep(call)

    def _run(self, greenlet: TaskGreenlet) -> None:
        """In a greenlet: the task, from its arguments to its end."""
        run = greenlet.execution
        assert isinstance(run, Run)
        stats = self.engine.stats
        stats.done += 1
        stats.number = stats.executing[0] = run.task.number
        try:
            end = run.returned(self._call(greenlet, run))
        except NoThread:  # the process asks to be replaced; another may run the task
            end = run.not_begun()
        except BaseException as error:  # the edge to user code
            greenlet.end_if_forked(error)
            stats.failed()
            end = run.raised(error)
        finally:
            greenlet.forget_call()
        greenlet.has_blocked = False
        run.is_done = True
        run.stop_timer()
        self.engine.turns.give_back(run)
        self._has_ended(run, end)

    def _call(self, greenlet: TaskGreenlet, run: Run) -> Any:
        try:
            positional, keywords = run.task.bind(run.args)
        except BadArguments as error:
            run.bad_arguments = error
            raise
        if run.task.blocking:
            return self.engine.threads.run_task(greenlet, positional, keywords)
        return run.task.function(*positional, **keywords)

    def _cancel(self, fence: int) -> None:
        """The end of a run is asked for, or the run is not ours any more."""
        run = self.runs.get(fence)
        if run is None or run.is_done:
            return
        if run in self.engine.turns.queued:
            self._give_back(run)
        elif run.greenlet is not None:
            run.refuse(TaskCancelled(f"{run.function}: cancelled"))
            self.engine.reactor.loop.run_callback(
                self.engine.limits.end, run, GreenletExit("cancelled")
            )

    # -- ends ---------------------------------------------------------------------------------

    def _has_ended(self, run: Run, end: list[Any]) -> None:
        """Have the end written down; it is told again until it is."""
        if self.runs.pop(run.fence, None) is None:
            return  # it was interrupted, and goes on nevertheless
        self.ends[run.fence] = end
        if not self._to_tell:
            self.engine.reactor.loop.run_callback(self._tell_ends)
        self._to_tell.append(end)

    def _tell_ends(self) -> None:
        ends, self._to_tell = self._to_tell, []
        if ends and self.link.is_up:
            self.link.tell("store.end", ends=ends)

    # -- what a call may ask of its connection ------------------------------------------------

    def answer(self, call: Execution, reply: bytes) -> None:
        """Nobody hears replies here: ends are told."""
        call.is_answered = True

    def find(self, id: str | int) -> Execution | None:
        return None

    def is_congested(self) -> bool:
        return False

    def let_go(self, call: Execution) -> None:
        """Its arguments are the store's to bound."""

    def send_progress(self, line: bytes) -> None:
        """Reports go to the store, by `report`."""

    def report(self, run: Run, report: list[Any]) -> None:
        """Tell the store how far a task is; from any thread."""
        if native_thread_id() != self.engine.thread:
            self.engine.reactor.loop.run_callback_threadsafe(self.report, run, report)
            return
        try:
            self.link.tell("store.progress", fence=run.fence, report=report)
        except Exception as error:  # what is not JSON
            log_error("progress of %r cannot be told", run, error=error)
