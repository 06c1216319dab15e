"""`Dealer`: which worker process gets which task, and what becomes of those that end.

A process says how many tasks it can hold; the one with most free places is dealt to first, and nothing is
dealt that could not begin. The dealer knows by heart what each holds, as the store does.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from time import monotonic, time
from typing import Any, Protocol

from ..errors import StoreUnavailable, TaskError
from ..logs.loggers import get_logger
from .line import Line
from .operations import Claim, End, Holdings, Join, Operation, Release
from .owner import OVERDUE_SECONDS, Owner, Run
from .owners import is_provably_dead, is_visible
from .records import Dealt, Identity, Terms
from .states import Event
from .wire import deal_line, notification_line

log = get_logger(__name__)

MOST_AT_ONCE = 10  # tasks in one message
LEASE_SECONDS = 30.0  # for owners that cannot be seen from here
AGAIN_SECONDS = 1.0  # until what could not be written down is tried again


class Asks(Protocol):
    """Where operations go."""

    def submit(self, operation: Operation, then: Callable[[Any], None]) -> None: ...


class Dealer:
    """All owners, and the ready tasks of each queue.

    Args:
        loop: gevent's.
        asks: the committer.

    Attributes:
        on_progress: told the queue, id and progress of a task that reports it.
    """

    def __init__(self, loop: Any, asks: Asks) -> None:
        self._loop = loop
        self._asks = asks
        self._owners: dict[int, Owner] = {}
        self._ready: dict[str, int] = {}
        self._timers: set[Any] = set()
        self._has_begun = False
        self.on_progress: Callable[[str, str, list[Any]], None] | None = None

    @property
    def workers(self) -> int:
        """How many processes are connected."""
        return sum(owner.line is not None for owner in self._owners.values())

    # -- at the start -------------------------------------------------------------------------

    def begin(self) -> None:
        """Take over what owners of before hold; what the provably dead held is free at once."""
        self._asks.submit(Holdings(), self._take_over)

    def _take_over(self, found: Any) -> None:
        if isinstance(found, TaskError):
            self._later(AGAIN_SECONDS, self.begin)
            return
        self._has_begun = True
        for number, (identity, runs) in found.items():
            owner = self._owners[number] = Owner(number, identity, self._loop, self._died)
            for fence, (seq, id, timeout_ms, started_at, is_suspect) in runs.items():
                spent = max(0.0, time() - started_at / 1000)
                owner.runs[fence] = Run(seq, id, "", timeout_ms, is_suspect, spent)
            if is_provably_dead(identity):
                self._died(owner)
            elif not owner.watch():
                owner.lease_until = monotonic() + LEASE_SECONDS

    # -- what workers say ---------------------------------------------------------------------

    def join(self, line: Line, params: dict[str, Any], answer: Callable[[Any], None]) -> None:
        """A worker has come, or come back: see what it holds, and deal to it."""
        identity = Identity(*params["identity"])

        def joined(number: Any) -> None:
            if not self._has_begun:  # what it holds is not known yet
                data = {"reason": "unreachable", "accepted": "no"}
                number = StoreUnavailable("the store is being opened", data)
            if isinstance(number, TaskError):
                answer(number)
                return
            owner = self._owners.get(number)
            if owner is None:
                owner = self._owners[number] = Owner(number, identity, self._loop, self._died)
            if not owner.watch() and is_visible(identity):
                self._died(owner)  # while it was being written down
                return
            self._connect(owner, line, params)
            held = {int(fence) for fence in params["holds"]}
            answer({"owner": number, "stop": sorted(held - owner.runs.keys())})
            self._compare(owner, held)

        self._asks.submit(Join(identity), joined)

    def _connect(self, owner: Owner, line: Line, params: dict[str, Any]) -> None:
        if owner.line is not None and owner.line is not line:
            owner.line.context = None
            owner.line.close()
        owner.line = line
        owner.queue = params["queue"]
        owner.capacity = int(params["capacity"])
        owner.functions = {
            name: Terms.from_seconds(terms) for name, terms in params["functions"].items()
        }
        owner.lease_until = None
        owner.loss = Event(params.get("loss") or Event.LOST.value)
        line.context = owner

    def _compare(self, owner: Owner, held: set[int]) -> None:
        """What never arrived there is freed."""
        if owner.runs.keys() - held:
            keep = frozenset(held)
            self._submit_again(
                Release(owner.number, Event.UNDELIVERED, keep=keep),
                lambda _: owner.keep(keep),
            )

    def set_capacity(self, owner: Owner, capacity: int) -> None:
        """So many tasks can it hold now, those it has included."""
        owner.capacity = capacity
        self.deal()

    def ended(self, owner: Owner, ends: list[list[Any]]) -> None:
        """Runs have ended: write that down, then tell the worker."""
        for seq, fence, event, outcome, after in ends:
            run = owner.runs.get(fence)
            operation = End(
                seq,
                fence,
                Event(event),
                None if outcome is None else outcome.encode(),
                None if after is None else int(after * 1000),
                owner.functions.get(run.function, Terms()) if run else Terms(),
            )
            self._end(owner, operation)

    def _end(self, owner: Owner, operation: End) -> None:
        def then(is_accepted: Any) -> None:
            owner.runs.pop(operation.fence, None)
            owner.tell_ended(operation.fence, bool(is_accepted))

        self._submit_again(operation, then)

    def drains(self, owner: Owner, loss: str) -> None:
        """Deal nothing more to it; what it does not finish is lost or interrupted."""
        owner.capacity = 0
        owner.loss = Event(loss)

    def progress(self, owner: Owner, fence: int, report: list[Any]) -> None:
        """A task tells how far it is."""
        run = owner.runs.get(fence)
        if run is not None and self.on_progress is not None:
            self.on_progress(owner.queue, run.id, report)

    def stop_run(self, number: int, fence: int) -> None:
        """The end of a run is asked for."""
        owner = self._owners.get(number)
        if owner is not None and owner.line is not None:
            owner.line.send(notification_line("store.stop", fences=[fence]))

    def disconnected(self, owner: Owner) -> None:
        """Its connection has ended, which says nothing about the process."""
        owner.line = None
        if not owner.is_watched:
            owner.lease_until = monotonic() + LEASE_SECONDS

    # -- ends of processes --------------------------------------------------------------------

    def _died(self, owner: Owner) -> None:
        """The process is dead: take up what it has said before, then free what it held."""
        if owner.is_over:
            return
        if owner.line is not None:
            owner.line.read_all()
        owner.is_over = True
        if owner.line is not None:
            owner.line.context = None
            owner.line.close()
            owner.line = None
        owner.close()
        late = owner.overdue(monotonic() + OVERDUE_SECONDS)  # all that are past their limit
        release = Release(owner.number, owner.loss, frozenset(late))

        def then(number: Any) -> None:
            self._owners.pop(owner.number, None)
            if number:
                log.warning(
                    "process %d has died with %d tasks: %s",
                    owner.identity.pid,
                    number,
                    owner.loss.value,
                )

        self._submit_again(release, then)

    def look_after(self, now: float) -> None:
        """About each second: kill what is past its limit, give up what cannot be seen."""
        for owner in list(self._owners.values()):
            if owner.is_over:
                continue
            if owner.lease_until is not None and now >= owner.lease_until:
                self._died(owner)
            elif overdue := owner.overdue(now):
                runs = ", ".join(owner.runs[fence].id for fence in overdue)
                late = f"{OVERDUE_SECONDS:g} s past its time limit"
                log.error("process %d is killed: task %s is %s", owner.identity.pid, runs, late)
                owner.kill()

    # -- dealing ------------------------------------------------------------------------------

    def applied(self, ready: dict[str, int], has_news: bool) -> None:
        """The store has this many tasks to deal."""
        self._ready = ready
        if has_news:
            for owner in self._owners.values():
                owner.is_exhausted = False
        self.deal()

    def deal(self) -> None:
        """Claim what is ready for those that have places."""
        for queue, ready in self._ready.items():
            takers = [one for one in self._owners.values() if one.queue == queue and one.takes]
            takers.sort(key=lambda owner: owner.free, reverse=True)
            for place, owner in enumerate(takers):
                if ready <= 0:
                    break
                share = ceil(ready / (len(takers) - place))
                limit = min(MOST_AT_ONCE, owner.free, share)
                self._claim(owner, limit)
                ready -= limit

    def _claim(self, owner: Owner, limit: int) -> None:
        def then(dealt: Any) -> None:
            owner.is_claiming = False
            if isinstance(dealt, TaskError):
                return
            owner.is_exhausted = len(dealt) < limit
            self._hand_out(owner, dealt)

        owner.is_claiming = True
        operation = Claim(owner.queue, owner.number, limit, owner.functions, not owner.has_suspect)
        self._asks.submit(operation, then)

    def _hand_out(self, owner: Owner, dealt: list[Dealt]) -> None:
        for task in dealt:
            owner.runs[task.fence] = Run(
                task.seq, task.id, task.function, task.timeout_ms, task.is_suspect
            )
        if owner.is_over:  # it died while the claim was being written down
            self._submit_again(Release(owner.number, Event.UNDELIVERED), lambda _: None)
        elif dealt and owner.line is not None:
            owner.line.send(deal_line(dealt))
        elif dealt:  # it is to come back: then it is seen that these never arrived
            log.debug("process %d has gone before it was dealt to", owner.identity.pid)

    # -- what must be written down ------------------------------------------------------------

    def _submit_again(self, operation: Operation, then: Callable[[Any], None]) -> None:
        """Until it is written down, however long that takes."""

        def outcome(found: Any) -> None:
            if isinstance(found, TaskError):
                self._later(AGAIN_SECONDS, self._submit_again, operation, then)
            else:
                then(found)

        self._asks.submit(operation, outcome)

    def _later(self, seconds: float, function: Callable[..., None], *args: Any) -> None:
        timer = self._loop.timer(seconds)
        self._timers.add(timer)

        def run() -> None:
            self._timers.discard(timer)
            timer.close()
            function(*args)

        timer.start(run)
