"""Calls without a wire: what a connection does for them is noted down instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from gtask.binding import TaskFunction
from gtask.protocols.messages import JSONRPC
from gtask.server.execution import Execution


class NotedConnection:
    """Notes the answers, and starts what waited by `start`.

    Attributes:
        answers: (id, the parsed reply) of each call, in order.
        started: ids of the calls that waited and got their turn, in order.
        sent: progress notifications.
    """

    peer = "127.0.0.1:1"

    def __init__(self, start: Callable[[Execution], Any] = lambda call: None) -> None:
        self._start = start
        self.answers: list[tuple[Any, Any]] = []
        self.started: list[Any] = []
        self.sent: list[bytes] = []

    def answer(self, call: Execution, reply: bytes) -> None:
        assert not call.is_answered, "an answer was given twice"
        call.is_answered = True
        self.answers.append((call.id, json.loads(reply)))

    def find(self, id: Any) -> Execution | None:
        return None

    def is_congested(self) -> bool:
        return False

    def let_go(self, call: Execution) -> None:
        pass

    def run_waiting(self, call: Execution) -> None:
        self.started.append(call.id)
        self._start(call)

    def send_progress(self, line: bytes) -> None:
        self.sent.append(line)

    def codes(self) -> list[tuple[Any, int]]:
        """(id, code) of the calls that were refused."""
        return [(id, reply["error"]["code"]) for id, reply in self.answers if "error" in reply]


def make_call(connection: Any, id: Any = 1, dialect: int = JSONRPC, **options: Any) -> Execution:
    """A call of a task `work` that does nothing."""
    call = Execution("work", [], id, dialect, False, **options)
    call.connection = connection
    call.task = TaskFunction(lambda: None, "work")
    call.task.number = 1
    call.bound = ([], {})
    call.started = 0.0
    return call
