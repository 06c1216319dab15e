"""The life of a task: its states, what may happen to it, and what then becomes of it.

Everything about transitions is decided here; stores look the facts up and write the verdict down.

    put ─► DELAYED ──due──► READY ──claim──► RUNNING ──► DONE, DEAD, CANCELLED, EXPIRED
              ▲                ▲                │
              └──── failed ────┴─ lost ─────────┘
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum, IntEnum

MAX_DELIVERIES = 5  # attempts after which a task whose processes die is given up
MAX_INTERRUPTIONS = 20  # the one that makes a task dead
SUSPECT_LOSSES = 2  # from so many on, a task is dealt beside no other such task
UNKNOWN_GRACE_MS = 600_000  # since its first refusal, until an unknown function makes a task dead
UNKNOWN_DELAY_MS = (1_000, 60_000)  # between two looks for a process that knows the function


class State(IntEnum):
    """Where a task is; the numbers are stored."""

    DELAYED = 0
    READY = 1
    RUNNING = 2
    DONE = 3
    DEAD = 4
    CANCELLED = 5
    EXPIRED = 6

    @property
    def is_final(self) -> bool:
        """Nothing but an operator changes it any more."""
        return self > State.RUNNING

    @property
    def word(self) -> str:
        """Its name on the wire."""
        return self.name.lower()


class Event(Enum):
    """What may happen to a task; the values are words of the wire between worker and store."""

    DUE = "due"
    CANCEL = "cancel"
    EXPIRE = "expire"
    CLAIM = "claim"
    RETURNED = "returned"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    REJECTED = "rejected"
    BAD_ARGUMENTS = "bad_arguments"
    UNDECODABLE = "undecodable"
    BAD_RESULT = "bad_result"
    LOST = "worker_lost"
    INTERRUPTED = "interrupted"
    UNDELIVERED = "undelivered"
    UNKNOWN_FUNCTION = "unknown_function"
    RETRY = "retry"


WAITING = (State.DELAYED, State.READY)

# Which states an event may find, and where it may lead to.
TRANSITIONS: dict[Event, tuple[tuple[State, ...], tuple[State, ...]]] = {
    Event.DUE: ((State.DELAYED,), (State.READY,)),
    Event.CANCEL: (WAITING, (State.CANCELLED,)),
    Event.EXPIRE: (WAITING, (State.EXPIRED,)),
    Event.CLAIM: ((State.READY,), (State.RUNNING,)),
    Event.RETURNED: ((State.RUNNING,), (State.DONE,)),
    Event.FAILED: ((State.RUNNING,), (State.DELAYED, State.DEAD, State.CANCELLED)),
    Event.TIMED_OUT: ((State.RUNNING,), (State.DELAYED, State.DEAD, State.CANCELLED)),
    Event.REJECTED: ((State.RUNNING,), (State.DEAD, State.CANCELLED)),
    Event.BAD_ARGUMENTS: ((State.RUNNING,), (State.DEAD,)),
    Event.UNDECODABLE: ((State.RUNNING,), (State.DEAD,)),
    Event.BAD_RESULT: ((State.RUNNING,), (State.DEAD,)),
    Event.LOST: ((State.RUNNING,), (State.READY, State.DEAD, State.CANCELLED)),
    Event.INTERRUPTED: ((State.RUNNING,), (State.READY, State.DEAD, State.CANCELLED)),
    Event.UNDELIVERED: ((State.RUNNING,), (State.READY, State.CANCELLED)),
    Event.UNKNOWN_FUNCTION: ((State.READY, State.RUNNING), (State.DELAYED, State.DEAD)),
    Event.RETRY: ((State.DEAD,), (State.READY,)),
}

# What a task that must not run on ends as when its caller has asked for its end.
_CANCELS = (
    Event.FAILED,
    Event.TIMED_OUT,
    Event.REJECTED,
    Event.LOST,
    Event.INTERRUPTED,
    Event.UNDELIVERED,
)


@dataclass(frozen=True)
class Facts:
    """What the verdict on a task that runs depends on.

    Attributes:
        attempt: starts that were not interrupted, this one included.
        retries: how often it may be tried again after a failure.
        interruptions: stops and reloads that have cut it off before.
        is_cancel_requested: its caller has asked for its end.
        is_in_grace: a function that is not known may still become known.
        max_deliveries: attempts after which its loss makes it dead, if `retries` are not more.
    """

    attempt: int
    retries: int = 0
    interruptions: int = 0
    is_cancel_requested: bool = False
    is_in_grace: bool = True
    max_deliveries: int = MAX_DELIVERIES


def verdict(event: Event, facts: Facts) -> State:
    """Where a running task goes after `event`.

    >>> verdict(Event.FAILED, Facts(attempt=1, retries=1)).word
    'delayed'
    >>> verdict(Event.FAILED, Facts(attempt=2, retries=1)).word
    'dead'
    """
    if facts.is_cancel_requested and event in _CANCELS:
        return State.CANCELLED
    match event:
        case Event.RETURNED:
            return State.DONE
        case Event.FAILED | Event.TIMED_OUT:
            return State.DELAYED if facts.attempt <= facts.retries else State.DEAD
        case Event.LOST:
            most = max(facts.retries + 1, facts.max_deliveries)
            return State.READY if facts.attempt < most else State.DEAD
        case Event.INTERRUPTED:
            is_last = facts.interruptions + 1 >= MAX_INTERRUPTIONS
            return State.DEAD if is_last else State.READY
        case Event.UNDELIVERED:
            return State.READY
        case Event.UNKNOWN_FUNCTION:
            return State.DELAYED if facts.is_in_grace else State.DEAD
        case _:
            return State.DEAD


def retry_delay_ms(attempt: int, base_ms: int, most_ms: int, draw: float | None = None) -> int:
    """How long to wait for the next try: exponential, with full jitter.

    Args:
        attempt: the one that has failed, from 1 on.
        draw: a number from 0 to 1 instead of a random one.

    >>> retry_delay_ms(3, 5_000, 600_000, draw=1.0)
    20000
    """
    longest = min(most_ms, base_ms << min(attempt - 1, 40))
    return int(longest * (random.random() if draw is None else draw))


def unknown_delay_ms(refused_for_ms: int) -> int:
    """How long a task whose function nobody knows waits, after it was refused for so long."""
    least, most = UNKNOWN_DELAY_MS
    return max(least, min(most, refused_for_ms))
