"""`Endpoint`: one address, its channels, and whether it is worth trying.

up ── no connection could be made ──► down ── after a while ──► one try ──► up, or down again
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any

from ..address import Address
from .channels import BareChannel, Channel, RpcChannel, Stage

if TYPE_CHECKING:
    from .switchboard import Switchboard

log = logging.getLogger("gtask.client")

FIRST_PAUSE = 0.1  # seconds after the first failure; doubled with each further one
MAX_PAUSE = 10.0


class Endpoint:
    """One address of a service, as one switchboard sees it.

    Attributes:
        channels: those that are opening or serving.
        failures: connections that failed, one after the other.
        why: the last failure.
        left_at: when it last sent its callers away, on the monotonic clock.
    """

    def __init__(self, board: Switchboard, address: Address) -> None:
        self.board = board
        self.address = address
        self.channels: set[Channel] = set()
        self.failures = 0
        self.why = ""
        self.left_at = 0.0
        self._timer: Any = None  # while down

    def __repr__(self) -> str:
        state = "down" if self.is_down else "up"
        return f"<Endpoint {self.address} {state}, {len(self.channels)} channels>"

    @property
    def is_down(self) -> bool:
        """It failed, and is not tried again yet."""
        return self._timer is not None

    @property
    def is_short(self) -> bool:
        """One more channel may be opened."""
        limit = 1 if self.failures else self.board.options.connections
        return self._timer is None and len(self.channels) < limit

    def open(self) -> None:
        """Open one more channel."""
        kind = BareChannel if self.board.options.dialect == "bare" else RpcChannel
        channel = kind(self)
        self.channels.add(channel)
        self.board.alive.add(channel)
        channel.connect()

    def close(self) -> None:
        """Forget about being down; the channels are the switchboard's to close."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    # -- told by the channels -----------------------------------------------------------------

    def joined(self, channel: Channel) -> None:
        """`channel` takes calls from now on."""
        self.channels.add(channel)
        self.board.joined(channel)

    def answered(self) -> None:
        """A call was answered: it is as good as ever."""
        if self.failures:
            self.failures = 0
            self.board.recount()

    def withdrew(self, channel: Channel) -> None:
        """`channel` takes no new calls."""
        self.channels.discard(channel)
        self.board.withdrew(channel)

    def lost(self, channel: Channel, stage: Stage, reason: str) -> None:
        """`channel` has ended."""
        self.channels.discard(channel)
        self.board.alive.discard(channel)
        if stage == Stage.OPENING or not channel.heard_at:
            self.failed(reason)
        self.board.withdrew(channel)

    def failed(self, why: str) -> None:
        """Leave it alone for a while, the longer the more often it failed."""
        self.why = why
        if self._timer is None and not self.board.is_closed:
            pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures, 16))
            self.failures += 1
            log.info("%s: %s; next try in about %.1f s", self.address, why, pause)
            self._timer = self.board.reactor.loop.timer(pause * random.uniform(0.5, 1.0))
            self._timer.start(self._try_again, update=True)
            self.board.endpoint_failed()

    def try_again(self) -> None:
        """Give it another chance now, if it is down."""
        if self.is_down:
            self._try_again()

    def _try_again(self) -> None:
        self.close()
        if self.is_short:
            self.open()
