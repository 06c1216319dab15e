"""`Record`: how an endpoint has answered lately, as a load that stands beside its real one.

An answer that fails at once leaves an endpoint idle, so the least loaded one would be the one that
fails. Hence what has failed counts as if it took as long as the calls of others do; and an endpoint
that refuses calls counts as ten times as loaded, so that it gets one now and then, to see whether it
still does.
"""

from __future__ import annotations

from ..errors import Draining, Overloaded, TaskError, UnknownTask

HALF_LIFE = 2.0  # seconds in which half of it is forgotten
WEIGHT = 0.3  # of the latest answer
AVERSION = 9.0  # the load of an endpoint that refuses everything, beside its own
FORGOTTEN = 0.02  # what is less is nothing
REFUSALS = (Overloaded, Draining, UnknownTask)  # another endpoint may do better


class Record:
    """Shares of an endpoint's latest answers, from 0 to 1, which fade with time."""

    def __init__(self) -> None:
        self._failed = 0.0  # answered with any error
        self._refused = 0.0  # with one of `REFUSALS`
        self._at = 0.0  # when they were brought up to date, on the monotonic clock

    def note(self, error: TaskError | None, now: float) -> None:
        """The endpoint has answered a call."""
        self._fade(now)
        self._failed += WEIGHT * ((error is not None) - self._failed)
        self._refused += WEIGHT * (isinstance(error, REFUSALS) - self._refused)

    @property
    def is_clean(self) -> bool:
        """There is nothing bad to tell any more."""
        return max(self._failed, self._refused) < FORGOTTEN

    def score(self, load: float, usual: float, now: float) -> float:
        """What to compare endpoints by; the least one gets the next call.

        Args:
            load: calls that the endpoint has.
            usual: calls that an endpoint has on average.
        """
        self._fade(now)
        own = max(load, self._failed * usual)
        return (own + 1.0) * (1.0 + AVERSION * self._refused) - 1.0

    def _fade(self, now: float) -> None:
        factor = 0.5 ** ((now - self._at) / HALF_LIFE)
        self._failed *= factor
        self._refused *= factor
        self._at = now
