"""`gtask.put` and the like at a text service: the store answers, and the caller takes no turn meanwhile."""

from __future__ import annotations

from typing import Any

from ...config import ServiceSettings
from ...errors import TaskError
from ..engine import Engine
from ..execution import Execution
from .side import QueueSide

FORWARDED = frozenset(
    (
        "gtask.put",
        "gtask.put_many",
        "gtask.state",
        "gtask.result",
        "gtask.cancel_job",
        "gtask.counts",
    )
)


def make_queues(engine: Engine, settings: ServiceSettings) -> Queues:
    """The sides of a service's stores; they share its places."""
    stores = settings.stores
    share = max(1, settings.queue_places // len(stores))
    return Queues([QueueSide(engine, store, share) for store in stores])


class Queues:
    """All stores of a worker: the first takes what is put, the others are only drained.

    Attributes:
        sides: one for each store.
    """

    def __init__(self, sides: list[QueueSide]) -> None:
        self.sides = sides

    @property
    def is_idle(self) -> bool:
        return all(side.is_idle for side in self.sides)

    def each(self, verb: str, *args: Any) -> None:
        """Have each side do the same."""
        for side in self.sides:
            getattr(side, verb)(*args)

    def health(self) -> dict[str, str]:
        """Whether the stores can be used, by their URLs."""
        return {side.store.store: "ok" if side.link.is_up else "error" for side in self.sides}

    def is_asked(self, call: Execution) -> bool:
        """The call is for a store."""
        return call.function in FORWARDED

    def ask(self, call: Execution) -> None:
        """Have the first store answer the call; hub or greenlet."""
        side = self.sides[0]
        params = call.args
        if type(params) is dict:
            params = {**params, "queue": side.store.queue}

        def then(value: Any) -> None:
            if call.is_answered:
                return  # it timed out, was cancelled, or its caller has gone
            call.is_done = True
            call.stop_timer()
            is_error = isinstance(value, TaskError)
            call.connection.answer(call, call.error(value) if is_error else call.result(value))

        side.link.ask(call.function, params, then)
