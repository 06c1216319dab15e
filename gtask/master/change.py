"""The start and every reload, as a state machine: new code takes over, or the present goes on.

Facts come in by methods, and each returns what the master is to do about it, in that order. No
sockets, processes, clocks or logs here: every moment is an argument, in seconds of a monotonic
clock; clients of the control socket are only handed back, in the replies that they are owed.

    IDLE       nothing is under way
    PREPARING  the settings are read, the addresses bound, and a mold is forked
    LOADING    that mold loads the code; nothing has changed for the present generation
    BOOTING    workers of the new generation boot and replace the present ones
    CLOSING    all are ready; some of those replaced have not closed their listening sockets yet
    STOPPED    the program stops, and nothing begins any more

| state            | what happens                   | what follows                      | next      |
|------------------|--------------------------------|-----------------------------------|-----------|
| IDLE             | `wanted`, or a retry is due    | Begin                             | PREPARING |
| PREPARING        | `begun`                        |                                   | LOADING   |
| PREPARING        | `not_begun`                    | GoBack, Complain, replies         | IDLE      |
| LOADING          | `loaded`                       | TakeOver                          | BOOTING   |
| LOADING          | `failed`, `mold_ended`         | Dismiss, GoBack, Complain, replies| IDLE      |
| LOADING, at the first start | the same            | Dismiss, Halt                     | IDLE      |
| BOOTING          | `progressed`: all is replaced  |                                   | CLOSING   |
| BOOTING          | `abandoned` by the roster      | Dismiss, GoBack, Complain, replies| IDLE      |
| BOOTING, CLOSING | `mold_ended`                   | Complain, replies; a retry        | IDLE      |
| CLOSING          | `progressed`: closed, or late  | Complete, replies                 | IDLE      |
| LOADING          | a newer one is wanted          | Dismiss, GoBack, Begin            | PREPARING |
| BOOTING          | the same                       | Withdraw, Dismiss, GoBack, Begin  | PREPARING |
| LOADING          | it is late                     | Abort, and then Dismiss           | LOADING   |
| neither IDLE nor STOPPED | `wanted`, or a retry is due | it is done when IDLE is reached | same    |
| any              | `stop`                         | replies                           | STOPPED   |
| STOPPED          | `wanted`                       | a reply                           | STOPPED   |

Whoever waits is answered by the change that begins next, whatever made it begin. The program begins
in PREPARING: its start is the first change. When the mold of the generation that serves has ended,
its workers live on, and a retry, which is a reload that nobody asked for, makes another mold.

The newest reload wins: one that has not finished a second after it began gives way to one that is
wanted since. Those who wait for it wait on, and are told that it was replaced. A start gives way to
nothing. A new generation that is known to run is not withdrawn for a newer one, but replaced by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from enum import Enum
from typing import Any

from .actions import (
    Abort,
    Action,
    Asker,
    Begin,
    Complain,
    Complete,
    Dismiss,
    GoBack,
    Halt,
    Reply,
    Say,
    TakeOver,
    Withdraw,
)
from .slots import CLOSING_SECONDS, DUMP_SECONDS, LATE_SECONDS, WATCH_SECONDS, too_late

BACKOFF_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # before the retries for a mold that was lost
PATIENCE_SECONDS = 1.0  # that a reload has before a newer one may replace it
FAILED = 1  # the exit code of a start that fails for other reasons than its configuration


class State(Enum):
    """What is under way."""

    IDLE = "idle"
    PREPARING = "preparing"
    LOADING = "loading"
    BOOTING = "booting"
    CLOSING = "closing"
    STOPPED = "stopped"


_NEXT = {
    State.IDLE: {State.PREPARING, State.STOPPED},
    State.PREPARING: {State.LOADING, State.IDLE, State.STOPPED},
    State.LOADING: {State.BOOTING, State.IDLE, State.STOPPED},
    State.BOOTING: {State.CLOSING, State.IDLE, State.STOPPED},
    State.CLOSING: {State.IDLE, State.STOPPED},
    State.STOPPED: set(),
}


class Change:
    """The start or reload that is under way, and the next one.

    Attributes:
        state: one of the table's.
        present: the newest generation whose code has loaded, which serves; 0 before the first.
        has_started: the first change is complete.
    """

    def __init__(self) -> None:
        self.state = State.PREPARING
        self.present = 0
        self.has_started = False
        self._generation = 0  # of the change under way
        self._clients: list[Asker] = []  # they wait for the change under way
        self._replaced: list[Asker] = []  # they do, too, but for one that it has replaced
        self._wish: list[Asker] | None = None  # they wait for one more; None: it is not wanted
        self._gives_way_at = math.inf  # when the change under way is replaced by the newer one
        self._begun_at = 0.0
        self._boot_timeout = 0.0
        self._late_at = math.inf  # when the loading has taken too long
        self._is_late = False
        self._close_by = math.inf
        self._retry_at = math.inf
        self._failures = 0  # of molds, since a change was complete
        self._living: set[int] = set()  # generations whose mold has not ended

    @property
    def is_under_way(self) -> bool:
        """A start or reload has begun and is not complete."""
        return self.state not in (State.IDLE, State.STOPPED)

    @property
    def awaits_workers(self) -> bool:
        """It is to be told how the workers are doing, by `progressed`."""
        return self.state in (State.BOOTING, State.CLOSING)

    def wake_at(self, now: float) -> float:
        """When `progressed` and `tick` are due; infinite if only facts can change anything."""
        watch = now + WATCH_SECONDS if self.state is State.CLOSING else math.inf
        return min(self._retry_at, self._gives_way_at, self._late_at, watch)

    # -- what is wanted -----------------------------------------------------------------------

    def wanted(self, *clients: Asker, now: float, standing: int) -> list[Action]:
        """Reload: now, or when what is under way is done or gives way.

        Args:
            standing: the generation that serves if nothing becomes of the change under way.
        """
        if self.state is State.STOPPED:
            return _reply(clients, ok=False, message="the service is stopping")
        if not self.is_under_way:
            return self._begin(clients)
        self._wish = [*(self._wish or ()), *clients]
        if self.has_started and self.state in (State.LOADING, State.BOOTING):
            self._gives_way_at = self._begun_at + PATIENCE_SECONDS
        return self._give_way(now, standing)

    def tick(self, now: float, standing: int) -> list[Action]:
        """Time has passed; `standing` is as for `wanted`."""
        actions = [*self._keep_limit(now), *self._give_way(now, standing)]
        if now >= self._retry_at:
            self._retry_at = math.inf
            if self.is_under_way:
                self._wish = self._wish or []
            elif self.state is State.IDLE:
                actions += self._begin(())
        return actions

    def stop(self) -> list[Action]:
        """The program stops."""
        waiting = [*self._clients, *self._replaced, *(self._wish or ())]
        self._clients, self._replaced, self._wish, self._retry_at = [], [], None, math.inf
        if self.state is not State.STOPPED:
            self._enter(State.STOPPED)
        return _reply(waiting, ok=False, message="the service is stopping")

    def _give_way(self, now: float, standing: int) -> list[Action]:
        """Replace the change under way by the newer one that is wanted, if it is time."""
        if now < self._gives_way_at:
            return []
        actions: list[Action] = [Say("a newer reload replaces the one that has not finished")]
        given_up = self._generation
        if self.state is State.LOADING:
            actions += [Dismiss(given_up), GoBack(self.present)]
        elif standing != given_up:
            self.present = standing
            actions += [Withdraw(given_up), Dismiss(given_up), GoBack(standing)]
        self._replaced += self._clients
        self._clients = []
        self._enter(State.IDLE)
        return [*actions, *self._begin(())]

    def _keep_limit(self, now: float) -> list[Action]:
        """End a mold that does not say by itself that it is late."""
        if now < self._late_at:
            return []
        if self._is_late:
            self._late_at = math.inf
            return [Dismiss(self._generation)]
        self._is_late, self._late_at = True, now + DUMP_SECONDS
        text = "the code has not loaded within boot_timeout: the process that loads it is ended"
        return [Say(text, is_trouble=True), Abort(self._generation)]

    # -- what happens -------------------------------------------------------------------------

    def begun(self, generation: int, now: float, boot_timeout: float) -> None:
        """Everything is prepared and the mold of the new generation has been forked.

        Args:
            boot_timeout: seconds that the mold may take to load; 0: any time.
        """
        self._enter(State.LOADING)
        self._generation = generation
        self._begun_at = now
        self._boot_timeout = boot_timeout
        self._is_late = False
        self._late_at = now + boot_timeout + LATE_SECONDS if boot_timeout else math.inf
        self._living.add(generation)

    def not_begun(self, problems: list[str], now: float) -> list[Action]:
        """The settings are wrong, an address is in use, no process can be forked."""
        return self._fail(problems, FAILED, now)

    def loaded(self, generation: int) -> list[Action]:
        """The mold has loaded the code, and can fork workers."""
        if not self._is_of(generation, State.LOADING):
            return []
        self._enter(State.BOOTING)
        self.present = generation
        return [TakeOver(generation)]

    def failed(self, generation: int, problems: list[str], code: int, now: float) -> list[Action]:
        """The mold cannot load the code; `code` is the exit code for a program that cannot start."""
        actions: list[Action] = [Dismiss(generation)]
        if self._is_of(generation, State.LOADING, State.BOOTING, State.CLOSING):
            actions += self._fail(problems, code, now)
        return actions

    def abandoned(self, generation: int, present: int, reason: str, now: float) -> list[Action]:
        """The workers of the new generation cannot boot, those of `present` stay."""
        self.present = present
        return self.failed(generation, [reason], FAILED, now)

    def mold_ended(self, generation: int, how: str, now: float) -> list[Action]:
        """A mold has ended; unless we dismissed it, that is trouble."""
        self._living.discard(generation)
        reason = f"the process that loads the code has ended: {how}"
        if self._is_of(generation, State.LOADING):
            if self._is_late:
                reason = f"the code is {too_late(self._boot_timeout)}"
            return self.failed(generation, [reason], FAILED, now)
        if generation != self.present or self.state is State.STOPPED:
            return []
        actions: list[Action] = [Say(f"{reason}; starting another", is_trouble=True)]
        if self._is_of(generation, State.BOOTING, State.CLOSING):
            self._enter(State.IDLE)
            actions += self._complain([reason])
        self._retry_later(now)
        return actions

    def progressed(
        self, now: float, *, is_up: bool, has_taken_over: bool, is_drainer_accepting: bool
    ) -> list[Action]:
        """How far the workers are.

        Args:
            is_up: all workers of the generation have booted; that is enough for a start.
            has_taken_over: and all others drain.
            is_drainer_accepting: one that drains has not closed its listening socket yet.
        """
        if not self.awaits_workers or not (has_taken_over if self.has_started else is_up):
            return []
        if self.state is State.BOOTING:
            self._enter(State.CLOSING)
            self._close_by = now + CLOSING_SECONDS
        return [] if is_drainer_accepting and now < self._close_by else self._complete()

    # -- how it begins and ends ---------------------------------------------------------------

    def _begin(self, clients: Iterable[Asker]) -> list[Action]:
        self._enter(State.PREPARING)
        self._clients, self._wish = [*(self._wish or ()), *clients], None
        return [Begin()]

    def _complete(self) -> list[Action]:
        self._enter(State.IDLE)
        self.has_started = True
        self._failures = 0
        message = f"reloaded, generation {self._generation}"
        return [
            Complete(self._generation),
            *self._answer(ok=True, message=message),
            *self._begin_again(),
        ]

    def _fail(self, problems: list[str], code: int, now: float) -> list[Action]:
        """The new code or its workers cannot run; the present ones go on, if there are any."""
        self._enter(State.IDLE)
        if not self.present:
            return [Halt("\n".join(problems), code)]
        if self.present not in self._living:
            self._retry_later(now)
        return [GoBack(self.present), *self._complain(problems), *self._begin_again()]

    def _complain(self, problems: list[str]) -> list[Action]:
        message = "reload failed, the previous code goes on"
        answers = self._answer(ok=False, message=message, problems=problems)
        return [Complain(tuple(problems)), *answers]

    def _answer(self, *, message: str, **answer: Any) -> list[Action]:
        """Tell all who wait how the change under way has ended."""
        actions = _reply(self._clients, message=message, **answer)
        newer = f"{message}; it has replaced the one that you asked for"
        actions += _reply(self._replaced, message=newer, **answer)
        self._clients, self._replaced = [], []
        return actions

    def _begin_again(self) -> list[Action]:
        return [] if self._wish is None else self._begin(())

    def _retry_later(self, now: float) -> None:
        index = min(self._failures, len(BACKOFF_SECONDS) - 1)
        self._failures += 1
        self._retry_at = now + BACKOFF_SECONDS[index]

    def _is_of(self, generation: int, *states: State) -> bool:
        """It is this generation's change that is in one of the states."""
        return self.state in states and generation == self._generation

    def _enter(self, state: State) -> None:
        assert state in _NEXT[self.state], f"{self.state} cannot become {state}"
        self.state = state
        if state is not State.LOADING:
            self._late_at = math.inf
        if state not in (State.LOADING, State.BOOTING):
            self._gives_way_at = math.inf


def _reply(clients: Iterable[Asker], **answer: Any) -> list[Action]:
    return [Reply(client, answer) for client in clients]
