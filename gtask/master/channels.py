"""The descriptors of the molds' and workers' channels, among all that the master's loop waits for."""

from __future__ import annotations

import contextlib
import math
import select
from time import monotonic
from typing import Any

from .complaints import Complaints
from .molds import Mold, Molds

DEAF_SECONDS = 1.0  # between the end of a generation's last process and its reaping, at most


class Channels:
    """What is said on them is read in each round of the loop; here it is woken for that.

    Args:
        poll: the loop's.
        molds: whose channels they are.
    """

    def __init__(self, poll: Any, molds: Molds, complaints: Complaints) -> None:
        self._poll = poll
        self._molds = molds
        self._complaints = complaints

    def add(self, mold: Mold) -> None:
        """Wake the loop for a mold that was forked, and for its workers."""
        for ours in (mold.channel, mold.events):
            self._poll.register(ours, select.POLLIN)

    def remove(self, mold: Mold) -> None:
        """Its last worker has ended: close them."""
        for ours in (mold.channel, mold.events):
            with contextlib.suppress(KeyError):  # it has hung up already
                self._poll.unregister(ours)
        mold.close()

    def tick(self, now: float) -> None:
        """Send the molds what there was no room for, and wake the loop when there is some again.

        Args:
            now: of the monotonic clock, in seconds.
        """
        for mold in self._molds.values():
            if mold.pid and now - mold.deaf_since > DEAF_SECONDS:
                # It has the workers' end, so one of them has shut that down for all. Others start
                # afresh.
                mold.deaf_since = math.inf
                self._complaints.add("a worker has shut the workers' channel down", now)
                mold.dismiss()
            if mold.is_connected:
                mold.send_requests()
                wanted = select.POLLIN | (select.POLLOUT if mold.requests else 0)
                self._poll.register(mold.channel, wanted)

    def serve(self, fd: int, events: int) -> None:
        """Do what poll(2) says about a descriptor, besides that there is something to read."""
        if not events & ~(select.POLLIN | select.POLLOUT):
            return
        self._poll.unregister(fd)  # nobody has the other end any more, or somebody has shut it down
        for mold in self._molds.values():
            if fd == mold.channel.fileno():
                mold.is_connected = False
            elif fd == mold.events.fileno():
                mold.deaf_since = monotonic()
