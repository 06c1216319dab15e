"""`Debts`: what the peers of this process owe it, and which of them have stood still for too long.

A peer owes it to take what was sent to it, to finish a frame that it began, and to finish a TLS
handshake. Streams tell of that when they have not got it at once, which is seldom, so the usual
read and write cost nothing. One timer a process looks at these debtors, while there are any.

Whoever stands still is ended. So is, when all together owe more than the process may hold of one
kind, whoever has stood still longest.
"""

from __future__ import annotations

from time import monotonic
from typing import Any, Final

from ..compiled import mypyc_attr
from ..logs.loggers import get_logger

log = get_logger("gtask.connection")

MAX_BYTES: Final = 256 * 1024 * 1024
SEND_SECONDS: Final = 30.0
HANDSHAKE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 1.0  # between two looks at the debtors, at most
LEAST_BYTES: Final = 1024  # of a frame, that are a step forward


@mypyc_attr(allow_interpreted_subclasses=True)
class Debtor:
    """What a stream must be able to tell and do."""

    __slots__ = ()

    def _sent_bytes(self) -> int:
        """Octets that the kernel has ever taken, after it was offered what waits."""
        raise NotImplementedError

    def _must_take(self) -> bool:
        """Whether a peer that takes nothing is to be ended."""
        raise NotImplementedError

    def _is_read(self) -> bool:
        """Whether it is read now; it may be paused."""
        raise NotImplementedError

    def _has_unread(self) -> bool:
        """Whether the peer has sent something that the loop has not come to yet."""
        raise NotImplementedError

    def _is_secured(self) -> bool:
        """Whether its TLS handshake is over."""
        raise NotImplementedError

    def _give_up(self, reason: str, is_full: bool) -> None:
        """End the connection; `is_full`: because the process holds too much for all peers."""
        raise NotImplementedError


class Debt:
    """What one stream owes.

    Attributes:
        size: octets of it that count.
        done: octets that had moved when it last went forward ...
        since: ... which was then, on the monotonic clock.
    """

    __slots__ = ("done", "since", "size")

    def __init__(self, since: float) -> None:
        self.size = 0
        self.done = 0
        self.since = since


class Debts:
    """The debtors of one process.

    Args:
        loop: gevent's.

    Attributes:
        max_bytes: what all peers together may make the process hold, of each kind.
        send_timeout: seconds in which a peer must take something of what waits for it, or send
            something of a frame that it began.
        handshake_timeout: seconds for a TLS handshake. Both: 0 is no limit.
        unsent_bytes, unfinished_bytes: what is held now.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self.max_bytes = MAX_BYTES
        self.send_timeout = SEND_SECONDS
        self.handshake_timeout = HANDSHAKE_SECONDS
        self.unsent_bytes = 0
        self.unfinished_bytes = 0
        self._unsent: dict[Debtor, Debt] = {}
        self._unfinished: dict[Debtor, Debt] = {}
        self._handshakes: dict[Debtor, float] = {}  # since when, the oldest first
        self._timer: Any = None
        self._is_asked = False  # somebody is to be ended as too much is held

    # -- told by the streams ------------------------------------------------------------------

    def owes_taking(self, stream: Debtor, size: int, done: int) -> None:
        """So much waits to be sent now; `done` octets the kernel has taken so far."""
        debt = self._unsent.get(stream)
        if debt is None:
            debt = self._unsent[stream] = self._new()
            debt.done = done
        self.unsent_bytes += size - debt.size
        debt.size = size
        if not size:
            del self._unsent[stream]
        elif self.unsent_bytes > self.max_bytes:
            self._ask()

    def owes_rest(self, stream: Debtor, size: int, is_new: bool) -> None:
        """So much is kept until the peer has sent the rest of a frame.

        Args:
            is_new: it is another frame than last time.
        """
        debt = self._unfinished.get(stream)
        if debt is None:
            debt = self._unfinished[stream] = self._new()
            is_new = True
        if is_new:
            debt.done = size
            debt.since = monotonic()
        self.unfinished_bytes += size - debt.size
        debt.size = size
        if not size:
            del self._unfinished[stream]
        elif self.unfinished_bytes > self.max_bytes:
            self._ask()

    def owes_handshake(self, stream: Debtor) -> None:
        """A TLS handshake has begun."""
        self._handshakes[stream] = monotonic()
        self._start()

    def forget(self, stream: Debtor) -> None:
        """The stream has ended."""
        debt = self._unsent.pop(stream, None)
        if debt is not None:
            self.unsent_bytes -= debt.size
        debt = self._unfinished.pop(stream, None)
        if debt is not None:
            self.unfinished_bytes -= debt.size
        self._handshakes.pop(stream, None)
        if not self._has_debtors():
            self._stop()

    def after_fork_in_child(self) -> None:
        """The debtors are those of the process that this one was forked from."""
        for stream in [*self._unsent, *self._unfinished, *self._handshakes]:
            self.forget(stream)
        self._stop()

    # -- seen to in the hub -------------------------------------------------------------------

    def look(self) -> None:
        """End who has stood still for too long."""
        now = monotonic()
        for stream in list(self._unsent):
            self._check(stream, self._check_taking, now)
        for stream in list(self._unfinished):
            self._check(stream, self._check_rest, now)
        for stream in list(self._handshakes):
            self._check(stream, self._check_handshake, now)
            if self._handshakes.get(stream, 0.0) > now - self.handshake_timeout:
                break  # those behind it are younger
        self._stop()
        if self._has_debtors():
            self._start()

    def _has_debtors(self) -> bool:
        return bool(self._unsent or self._unfinished or self._handshakes)

    def _check(self, stream: Debtor, check: Any, now: float) -> None:
        try:
            check(stream, now)
        except BaseException:  # the others' time must be seen to, too
            self.forget(stream)
            log.exception("%r: its time limits failed", stream)

    def _check_taking(self, stream: Debtor, now: float) -> None:
        done = stream._sent_bytes()  # offers it to the kernel: the loop may be late with that
        debt = self._unsent.get(stream)
        if debt is None:
            return
        if done != debt.done:
            debt.done = done
            debt.since = now
        elif self._is_over(self.send_timeout, now - debt.since) and stream._must_take():
            stream._give_up(f"took nothing for {self.send_timeout:g} s", False)

    def _check_rest(self, stream: Debtor, now: float) -> None:
        debt = self._unfinished.get(stream)
        if debt is None:
            return
        if debt.size - debt.done >= LEAST_BYTES or not stream._is_read():
            debt.done = debt.size
            debt.since = now
        elif self._is_over(self.send_timeout, now - debt.since) and not stream._has_unread():
            stream._give_up(f"no more of a frame for {self.send_timeout:g} s", False)

    def _check_handshake(self, stream: Debtor, now: float) -> None:
        since = self._handshakes.get(stream, now)
        if stream._is_secured():
            self._handshakes.pop(stream, None)
        elif self._is_over(self.handshake_timeout, now - since) and not stream._has_unread():
            stream._give_up(f"TLS: no handshake within {self.handshake_timeout:g} s", False)

    def _is_over(self, limit: float, seconds: float) -> bool:
        return limit > 0 and seconds >= limit

    def _new(self) -> Debt:
        self._start()
        return Debt(monotonic())

    def _start(self) -> None:
        if self._timer is None:
            shortest = min(
                self.send_timeout or LOOK_SECONDS, self.handshake_timeout or LOOK_SECONDS
            )
            # A new one each time: libev starts one that has fired with what was left of its time.
            self._timer = self._loop.timer(min(LOOK_SECONDS, shortest / 4))
            self._timer.start(self.look, update=True)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    # -- when too much is held ----------------------------------------------------------------

    def _ask(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._loop.run_callback(self._relieve)

    def _relieve(self) -> None:
        """End the debtors that have stood still longest, until the rest is not too much."""
        self._is_asked = False
        enough = self.max_bytes - self.max_bytes // 8
        if self.unsent_bytes > self.max_bytes:
            for stream in self._slowest(self._unsent):
                if self.unsent_bytes <= enough:
                    break
                if stream._must_take():
                    stream._give_up("too much waits to be sent to all peers", True)
        if self.unfinished_bytes > self.max_bytes:
            for stream in self._slowest(self._unfinished):
                if self.unfinished_bytes <= enough:
                    break
                stream._give_up("too much waits for the rest of frames of all peers", True)

    def _slowest(self, debts: dict[Debtor, Debt]) -> list[Debtor]:
        """The debtors in the order in which they are to go: by full seconds, then by size."""
        now = monotonic()
        order = [(int(debt.since - now), -debt.size, n) for n, debt in enumerate(debts.values())]
        streams = list(debts)
        return [streams[n] for _, _, n in sorted(order)]
