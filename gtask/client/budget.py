"""`RetryBudget`: repetitions are a share of the calls, so that they do not multiply an outage."""

from __future__ import annotations

SHARE = 0.2  # of the calls made lately; as Finagle and Envoy have it
PER_SECOND = 10.0  # repetitions that any client may make
RESERVE = 100.0  # of these, what can be saved up
WINDOW = 10.0  # seconds that are "lately"


class RetryBudget:
    """Counts what may be repeated; it is looked at only when something is to be.

    Args:
        now: seconds of the monotonic clock, as everywhere here.
    """

    def __init__(self, now: float) -> None:
        self._left = RESERVE
        self._calls = 0
        self._at = now

    def spend(self, calls: int, now: float) -> bool:
        """Whether one call may be repeated; if so, that is taken off.

        Args:
            calls: how many were made so far.
        """
        self._earn(calls - self._calls, max(0.0, now - self._at))
        self._calls, self._at = calls, now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True

    def _earn(self, calls: int, seconds: float) -> None:
        reserve = min(RESERVE, self._left + PER_SECOND * seconds)
        beyond = max(0.0, self._left - RESERVE) * 0.5 ** (seconds / WINDOW)
        lately = calls * min(1.0, WINDOW / seconds) if seconds else calls
        self._left = reserve + beyond + SHARE * lately
