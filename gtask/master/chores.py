"""What the master does every now and then, whatever happens: it reads the workers' scoreboards.

The roster gets their heartbeats, the status its samples, systemd the watchdog's sign and a line.
"""

from __future__ import annotations

from .roster import Roster
from .status import Status
from .systemd import Notifier

CHORES_SECONDS = 0.25  # between two readings of the heartbeats
SAMPLE_SECONDS = 1.0
STATUS_SECONDS = 5.0  # between two status lines for systemd
HEALTHY_SECONDS = 5.0  # a worker may be silent for so long, or for half the watchdog's time


class Chores:
    """Call `do` at `wake_at`; moments are seconds of the monotonic clock."""

    def __init__(self, roster: Roster, status: Status, notifier: Notifier) -> None:
        self._roster = roster
        self._status = status
        self._notifier = notifier
        self.wake_at = 0.0
        self._sample_at = self._watchdog_at = self._status_at = 0.0

    def do(self, now: float, *, is_serving: bool, is_changing: bool) -> None:
        """Do what is due.

        Args:
            is_serving: workers are demanded to be healthy: it has started, and does not stop.
            is_changing: systemd shows a line about a start, reload or stop, which is to stay.
        """
        if now < self.wake_at:
            return
        self.wake_at = now + CHORES_SECONDS
        for process in self._roster.processes:
            if process.pid:
                self._roster.beat(process.pid, self._status.last_sign(process))
        if now >= self._sample_at:
            self._sample_at = now + SAMPLE_SECONDS
            self._status.sample(now)
        if now >= self._watchdog_at and (not is_serving or self._is_healthy(now)):
            self._watchdog_at = now + self._notifier.watchdog_seconds / 2
            self._notifier.watchdog()
        if now >= self._status_at and not is_changing:
            self._status_at = now + STATUS_SECONDS
            self._notifier.status(self._status.summary())

    def _is_healthy(self, now: float) -> bool:
        """Each service has a worker whose loop turns."""
        limit = max(self._notifier.watchdog_seconds / 2, HEALTHY_SECONDS)
        return self._status.turning(now - limit) >= self._roster.plans.keys()
