"""Whatever happens to a pool, in whatever order: each submitted call ends exactly once."""

from __future__ import annotations

from typing import Any

from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.net.stream import StreamState

from .world import World

OVERLOADED, DRAINING, FAILED = -32000, -32003, 1


class PoolMachine(RuleBasedStateMachine):
    """Two hosts, and a user whose callbacks make calls and cancel some."""

    dialect = "jsonrpc"

    def __init__(self) -> None:
        super().__init__()
        self.world = World(hosts=2, dialect=self.dialect, max_age=20.0, max_pending=12)
        self.is_open = True

    def teardown(self) -> None:
        try:
            self.world.finish()
        finally:
            self.world.close()

    def choose(self, index: int, *states: StreamState) -> Any:
        """One of the connections in these states, if there is one."""
        found = [each for each in self.world.opened if each.state in states]
        return found[index % len(found)] if found else None

    @rule(
        retries=st.integers(0, 2),
        timeout=st.sampled_from([0.05, 2.0, 60.0, float("inf")]),
        then=st.sampled_from(["", "", "call", "cancel"]),
    )
    def submit(self, retries: int, timeout: float, then: str) -> None:
        if len(self.world.calls) < 60:
            self.world.call(retries, timeout, {"": None}.get(then, lambda: self.user(then)))

    def user(self, what: str) -> None:
        if what == "call":
            self.world.call()
        else:
            for call in list(self.world.pool.calls.values())[:2]:
                call.cancel()

    @rule(index=st.integers(0, 9), room=st.sampled_from([0, 30, 80, 1 << 40]))
    def connect(self, index: int, room: int) -> None:
        if connection := self.choose(index, StreamState.CONNECTING):
            self.world.connect(connection, room)

    @rule(index=st.integers(0, 9))
    def refuse(self, index: int) -> None:
        if connection := self.choose(index, StreamState.CONNECTING):
            self.world.refuse(connection)

    @rule(index=st.integers(0, 9))
    def take(self, index: int) -> None:
        if connection := self.choose(index, StreamState.OPEN, StreamState.FLUSHING):
            self.world.take(connection)

    @rule(index=st.integers(0, 9), what=st.sampled_from(["pong", "pong", "goaway", "lose"]))
    def peer(self, index: int, what: str) -> None:
        if connection := self.choose(index, StreamState.OPEN):
            getattr(self.world, what)(connection)

    @rule(index=st.integers(0, 9), garbage=st.sampled_from([[], 5, {"id": 1}, "x" * 20_000]))
    def nonsense(self, index: int, garbage: Any) -> None:
        if connection := self.choose(index, StreamState.OPEN):
            self.world.say(connection, garbage)

    @rule(
        index=st.integers(0, 99),
        code=st.sampled_from([None, None, None, OVERLOADED, DRAINING, FAILED]),
    )
    def answer(self, index: int, code: int | None) -> None:
        found = [
            (connection, id)
            for connection in self.world.opened
            if connection.state == StreamState.OPEN
            for id in connection.calls
        ]
        if found:
            self.world.answer(*found[index % len(found)], code)

    @rule(index=st.integers(0, 99))
    def cancel(self, index: int) -> None:
        unfinished = list(self.world.pool.calls.values())
        if unfinished:
            assert unfinished[index % len(unfinished)].cancel()

    @rule(seconds=st.sampled_from([0.01, 0.03, 0.5, 4.0, 30.0]))
    def wait(self, seconds: float) -> None:
        self.world.wait(seconds)

    @precondition(lambda self: self.is_open and len(self.world.calls) > 5)
    @rule()
    def close(self) -> None:
        self.is_open = False
        self.world.pool.close()

    @invariant()
    def holds(self) -> None:
        self.world.check()


class BarePoolMachine(PoolMachine):
    dialect = "bare"


TestPool = PoolMachine.TestCase
TestBarePool = BarePoolMachine.TestCase
TestPool.settings = hypothesis_settings(max_examples=80, stateful_step_count=40, deadline=None)
TestBarePool.settings = TestPool.settings
