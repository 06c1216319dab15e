"""What should be running: the plan of each service, and of all services of one generation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Plan:
    """What one service should be.

    Attributes:
        count: of its processes.
        hard_timeout: seconds for which one may be stuck before it is killed; 0: for ever.
        place: the address that it listens on, as it is bound.
        rows: of its scoreboard.
    """

    count: int
    hard_timeout: float = 0.0
    place: str = ""
    rows: int = 256

    @property
    def surge(self) -> int:
        """How many may boot beside those that they replace."""
        return max(2, self.count // 4)

    @property
    def most_draining(self) -> int:
        """How many may drain at once without a stop or a reload."""
        return max(2, self.count)

    def resized(self, delta: int) -> Plan:
        """So many processes more, or fewer; at least one, and no more than have rows in any case."""
        most = max(self.count, (self.rows - 4) * 4 // 9)  # they, those that drain, and the surge
        return replace(self, count=min(max(1, self.count + delta), most))


@dataclass
class PlannedGeneration:
    """One generation of workers: what it should be, and how its boot goes.

    Attributes:
        has_mold: it can fork more workers.
        forked_at: when its mold last had forked one.
        failures: how many boots in a row failed, by service.
        served: the services that have had a ready worker.
    """

    number: int
    plans: Mapping[str, Plan]
    has_mold: bool = True
    forked_at: float = -math.inf
    failures: Counter[str] = field(default_factory=Counter)
    served: set[str] = field(default_factory=set)

    @property
    def serves_all(self) -> bool:
        """Each service has had a ready worker, so the code is known to run."""
        return self.served >= self.plans.keys()
