"""What can be asked of a store, as data: each is applied as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .records import Identity, NewTask, Terms
from .states import Event


@dataclass(frozen=True)
class Put:
    """Take a task; the outcome is `(id, state, created)`."""

    queue: str
    task: NewTask


@dataclass(frozen=True)
class Look:
    """A task's record as on the wire (`gtask.state`), with its arguments if asked for."""

    queue: str
    id: str
    with_args: bool = False


@dataclass(frozen=True)
class Result:
    """A task's state and outcome; the outcome is a `Found`."""

    queue: str
    id: str


@dataclass(frozen=True)
class Cancel:
    """End a task that waits, and ask for the end of one that runs.

    The outcome is `(state, is_requested, owner, fence)`; the last two are 0 unless it runs.
    """

    queue: str
    id: str


@dataclass(frozen=True)
class Join:
    """A process wants tasks; the outcome is its number as an owner."""

    identity: Identity


@dataclass(frozen=True)
class Claim:
    """Start up to `limit` ready tasks for an owner; the outcome is a list of `Dealt`.

    Attributes:
        functions: what the owner can run, with their terms.
        takes_suspect: the owner holds no task that was lost twice.
    """

    queue: str
    owner: int
    limit: int
    functions: Mapping[str, Terms]
    takes_suspect: bool = True


@dataclass(frozen=True)
class End:
    """A run has ended; the outcome is whether the fence was the task's, the first time or again.

    Attributes:
        outcome: JSON of the result or of the error.
        after_ms: until the next try, if the task itself has said so.
        terms: of the function.
    """

    seq: int
    fence: int
    event: Event
    outcome: bytes | None = None
    after_ms: int | None = None
    terms: Terms = Terms()


@dataclass(frozen=True)
class Release:
    """An owner has lost what it held, by `event`; the outcome is the number of tasks.

    Attributes:
        overdue: fences of the runs that were past their limit: these have timed out.
        keep: fences of what it still holds; None: the owner has ended.
    """

    owner: int
    event: Event
    overdue: frozenset[int] = frozenset()
    keep: frozenset[int] | None = None


@dataclass(frozen=True)
class Holdings:
    """What owners hold, as `{owner: (identity, {fence: (seq, id, timeout_ms, started_at, suspect)})}`."""


@dataclass(frozen=True)
class Upkeep:
    """Promote what is due, expire and forget what is over; all operations do some of that."""


@dataclass(frozen=True)
class Counts:
    """The counts of each queue as on the wire (`gtask.counts`)."""


@dataclass(frozen=True)
class Listing:
    """Records without arguments, by the order of their puts: `(records, cursor for the rest or 0)`.

    Attributes:
        after: a cursor, or the id of a record.
    """

    queue: str
    state: str = ""
    function: str = ""
    limit: int = 100
    after: int | str = 0


@dataclass(frozen=True)
class Retry:
    """Begin a dead task anew; the outcome is whether it was dead."""

    queue: str
    id: str


@dataclass(frozen=True)
class Purge:
    """Forget final records that ended `older_ms` ago or before: how many, at most 500 at a time."""

    queue: str
    state: str
    older_ms: int


@dataclass(frozen=True)
class Pause:
    """Deal nothing of a queue, or deal again."""

    queue: str
    is_paused: bool


@dataclass(frozen=True)
class CronSeen:
    """Up to when a section's moments are dealt with, in milliseconds; now, if it is new."""

    name: str


@dataclass(frozen=True)
class CronDone:
    """A section's moments are dealt with, up to this one."""

    name: str
    moment: int


@dataclass(frozen=True)
class Check:
    """Look the whole store over; the outcome is a list of what is wrong."""


Operation = (
    Put
    | Look
    | Result
    | Cancel
    | Join
    | Claim
    | End
    | Release
    | Holdings
    | Upkeep
    | Counts
    | Listing
    | Retry
    | Purge
    | Pause
    | CronSeen
    | CronDone
    | Check
)
