"""What becomes of calls, as histories on a fake clock: each ends once, and as well as it can.

test_pool_random.py has histories that nobody has thought of, and test_pool_sockets.py the same pool
with real sockets and peers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gtask.client.connection import Stage
from gtask.client.pool import MAX_MOVES

from .world import World

OVERLOADED, DRAINING = -32000, -32003

# Each history: what it is about, how the pool is made, what happens, and how the calls end, by id.
# Connections are numbered from 0 as they are opened, calls from 1. The words:
#
#   call                 one call more; "call retries=1 timeout=9" is one with options
#   connect C            the connection C is made; "connect C 25": its socket takes 25 octets
#   refuse C             it is not
#   pong C               its peer answers the ping
#   up C                 connect C and pong C
#   answer N, fail N X   the peer answers call N, with its number or with the error code X
#   late C N, twice C N  it does so on C although the call is not there any more; or twice at once
#   unread C WHAT        so much of the peer of C lies in the socket, and the loop has not run
#   goaway C, lose C     what the peer of C does
#   cancel N, close      what the user does
#   wait S               so many seconds pass
#   N on C               call N is on connection C; "N waiting", "N to be retried": elsewhere
#   C STAGE              that is the stage of connection C
#   open N               so many connections have been opened
HISTORIES: list[tuple[str, dict[str, Any], str, dict[int, str]]] = [
    ("answered", {}, "call, up 0, 1 on 0, answer 1", {1: "ok"}),
    ("failed", {}, "call, up 0, fail 1 1", {1: "TaskFailed"}),
    ("no call goes to a peer that has not spoken", {}, "call, connect 0, 1 waiting", {1: "-"}),
    # -- an endpoint that refuses
    (
        "a refused endpoint pauses, and calls that have waited long enough are given up",
        {"patience": 0.05},
        "call, refuse 0, 1 waiting, wait 0.05",
        {1: "WorkerLost unsent"},
    ),
    (
        "patience outlasts a refused endpoint, which is tried again",
        {"patience": 3.0},
        "call, refuse 0, wait 0.1, open 2, refuse 1, wait 0.2, open 3, up 2, 1 on 2, answer 1",
        {1: "ok"},
    ),
    (
        "patience is not lost while an endpoint is being tried",
        {"patience": 0.05},
        "call, wait 0.06, 1 waiting, refuse 0",
        {1: "WorkerLost unsent"},
    ),
    (
        "an endpoint that has failed gets one connection, until a call is answered",
        {"connections": 2},
        "call, refuse 0, wait 0.1, up 1, 1 on 1, call, open 2, answer 1, call, open 3",
        {1: "ok"},
    ),
    (
        "one of two refuses",
        {"hosts": 2, "connections": 1},
        "call, open 2, refuse 0, up 1, 1 on 1, call, 2 on 1, answer 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "what is given up is repeated if it may be",
        {"patience": 0.05},
        "call retries=1, refuse 0, wait 0.05, 1 to be retried, wait 0.3, up 1, answer 1",
        {1: "ok"},
    ),
    (
        "connected, but no answer: the server may be busy, so the call waits, and others are tried",
        {"connect_timeout": 1.0, "patience": 1.4},
        "call, connect 0, wait 1.1, 0 PROBING, 1 waiting, wait 0.2, connect 1, wait 1, 1 CLOSED,"
        " wait 9, 0 PROBING, 1 waiting, pong 0, 1 on 0, answer 1",
        {1: "ok"},
    ),
    (
        "connected, but no answer; then it goes away, and cannot be reached any more",
        {"connect_timeout": 1.0, "patience": 1.4},
        "call, connect 0, wait 2, refuse 1, 1 waiting, lose 0",
        {1: "WorkerLost unsent"},
    ),
    (
        "a silent one is not kept when no call waits any more",
        {"connect_timeout": 1.0},
        "call timeout=1.5, connect 0, wait 1.1, 0 PROBING, wait 1, 0 CLOSED",
        {1: "TaskTimedOut"},
    ),
    # -- a connection that is lost
    ("lost after it was sent", {}, "call, up 0, lose 0", {1: "WorkerLost sent"}),
    (
        "lost after it was sent, and repeated",
        {},
        "call retries=1, up 0, lose 0, 1 to be retried, wait 0.1, up 1, 1 on 1, answer 1",
        {1: "ok"},
    ),
    (
        "what the kernel has not taken goes elsewhere without a word",
        {"connections": 1},
        "call, connect 0 120, pong 0, call, 1 on 0, 2 on 0, lose 0, 2 waiting, up 1, answer 2",
        {1: "WorkerLost sent", 2: "ok"},
    ),
    # -- servers that leave
    (
        "goaway: what it has is finished there, all else goes elsewhere",
        {"connections": 1},
        "call, up 0, goaway 0, 0 DRAINING, call, 2 waiting, up 1, 2 on 1, answer 1, 0 CLOSED,"
        " answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "goaway instead of a welcome",
        {"hosts": 2, "connections": 1},
        "call, connect 0, goaway 0, 0 CLOSED, up 1, answer 1",
        {1: "ok"},
    ),
    (
        "a draining server hands a call back: at first it goes elsewhere at once",
        {"hosts": 2, "connections": 1},
        f"call, up 0, up 1, fail 1 {DRAINING}, 0 CLOSED, 1 on 1, answer 1",
        {1: "ok"},
    ),
    (
        "a second draining server hands it back: it waits before it tries a third",
        {"hosts": 3, "connections": 1},
        f"call, up 0, up 1, up 2, fail 1 {DRAINING}, fail 1 {DRAINING}, 1 to be retried, wait 0.2,"
        " 1 on 2, answer 1",
        {1: "ok"},
    ),
    (
        "a draining server hands a call back, and there is no other",
        {"connections": 1},
        f"call, up 0, fail 1 {DRAINING}, 1 to be retried, wait 0.2, up 1, 1 on 1, answer 1",
        {1: "ok"},
    ),
    (
        "a draining server hands a bare call back",
        {"dialect": "bare", "hosts": 2, "connections": 1},
        f"call, connect 0, connect 1, fail 1 {DRAINING}, 1 on 1, answer 1",
        {1: "ok"},
    ),
    # -- deadlines
    ("a deadline while it waits", {}, "call timeout=1, wait 1", {1: "TaskTimedOut"}),
    (
        "a deadline in silence: no new calls until the peer speaks",
        {"connections": 1},
        "call, up 0, answer 1, wait 1, call timeout=1, wait 1, 0 PROBING, call, 3 waiting, open 2,"
        " pong 0, 0 READY, wait 0.03, 3 on 0, answer 3",
        {1: "ok", 2: "TaskTimedOut", 3: "ok"},
    ),
    (
        "a peer that stays silent is closed when no call can come from it any more",
        {"connections": 1, "connect_timeout": 2.0},
        "call, up 0, answer 1, wait 1, call timeout=1, call timeout=6, wait 5, 0 PROBING, wait 4,"
        " 0 CLOSED",
        {1: "ok", 2: "TaskTimedOut", 3: "TaskTimedOut"},
    ),
    (
        "a deadline while the peer answers others says nothing against it",
        {"connections": 1},
        "call timeout=1, call, up 0, answer 2, wait 1, 0 READY",
        {1: "TaskTimedOut", 2: "ok"},
    ),
    (
        "a deadline before the next try",
        {},
        f"call retries=9 timeout=0.2, up 0, fail 1 {OVERLOADED}, wait 0.3",
        {1: "TaskTimedOut"},
    ),
    (
        "a deadline of a bare call costs the connection",
        {"dialect": "bare", "connections": 1},
        "call timeout=1, call, connect 0, wait 1, 0 CLOSED, wait 0.2, connect 1, answer 2",
        {1: "TaskTimedOut", 2: "ok"},
    ),
    # -- retries
    (
        "retries are used up",
        {},
        f"call retries=1, up 0, fail 1 {OVERLOADED}, wait 0.1, fail 1 {OVERLOADED}",
        {1: "Overloaded"},
    ),
    (
        "what the task raised is not repeated",
        {},
        "call retries=9, up 0, fail 1 1",
        {1: "TaskFailed"},
    ),
    # -- the user
    ("cancelled while it waits", {}, "call, cancel 1, cancel 1", {1: "TaskCancelled"}),
    (
        "cancelled after it was sent; its answer is dropped",
        {"connections": 1},
        "call, call, up 0, cancel 1, late 0 1, answer 2",
        {1: "TaskCancelled", 2: "ok"},
    ),
    (
        "cancelled before its next try",
        {},
        f"call retries=1, up 0, fail 1 {OVERLOADED}, cancel 1, wait 9",
        {1: "TaskCancelled"},
    ),
    (
        "closed, wherever the calls are",
        {"connections": 1},
        f"call retries=1, up 0, call, fail 1 {OVERLOADED}, goaway 0, call, 1 to be retried, 2 on 0,"
        " 3 waiting, close, call",
        dict.fromkeys(range(1, 5), "TaskCancelled"),
    ),
    (
        "too many",
        {"max_pending": 1},
        "call, call, up 0, answer 1, call, answer 3",
        {1: "ok", 2: "Overloaded", 3: "ok"},
    ),
    # -- which connection
    (
        "the first calls are shared by the connections that open at once",
        {"connections": 2},
        "call, call, call, call, open 2, up 0, 1 on 0, 2 on 0, 3 waiting, call,"
        " 5 waiting, up 1, 3 on 1, 4 on 1, 5 on 0",
        {1: "-"},
    ),
    (
        "calls do not wait long for a second connection",
        {"connections": 2},
        "call, call, open 2, up 0, 2 waiting, wait 0.03, 2 on 0",
        {1: "-"},
    ),
    (
        "an idle one is shared, too, while others open",
        {"dialect": "bare", "connections": 2},
        "call, call, call, connect 0, 1 on 0, 2 waiting, answer 1, 2 on 0, answer 2, 3 on 0",
        {1: "ok", 2: "ok", 3: "-"},
    ),
    (
        "the least loaded, in turns",
        {"connections": 3},
        "call, call, call, up 0, up 1, up 2, call, 4 on 0, call, 5 on 1, answer 1, answer 4, call,"
        " 6 on 0, call, 7 on 2",
        {1: "ok", 4: "ok"},
    ),
    (
        "a connection for each bare call",
        {"dialect": "bare", "connections": 1, "keep_connections": False},
        "call, call, connect 0, answer 1, 0 CLOSED, open 2, 2 waiting, connect 1, answer 2, open 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "a connection that gets old before its first call is no failure",
        {"dialect": "bare", "connections": 2, "max_age": 10.0},
        "call, call, connect 0, answer 1, 2 on 0, answer 2, connect 1, wait 12.05, 0 CLOSED,"
        " 1 CLOSED, open 2, call, open 3, connect 2, answer 3",
        {1: "ok", 2: "ok", 3: "ok"},
    ),
    # -- while nothing ran the loop
    (
        "a goodbye that lies unread: calls go elsewhere before they are sent",
        {"connections": 1},
        "call, up 0, answer 1, unread 0 goaway, call, 0 CLOSED, 2 waiting, up 1, 2 on 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "an end of stream that lies unread",
        {"connections": 1},
        "call, up 0, answer 1, unread 0 end, call, 0 CLOSED, 2 waiting, up 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "an end that a bare caller has not read",
        {"connections": 1, "dialect": "bare"},
        "call, connect 0, answer 1, unread 0 end, call, 0 CLOSED, connect 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "what lies there before a bare call was sent is not its answer",
        {"connections": 1, "dialect": "bare"},
        "call, connect 0, answer 1, unread 0 answer, call, 0 CLOSED, connect 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "an answer that lies there at the deadline counts",
        {"connections": 1},
        "call timeout=1, up 0, unread 0 answer, wait 1, 0 READY",
        {1: "ok"},
    ),
    (
        "a pong that lies there when the time for it is over counts",
        {"connections": 1, "connect_timeout": 1.0},
        "call, connect 0, unread 0 pong, wait 1, 0 READY, 1 on 0, answer 1",
        {1: "ok"},
    ),
    # -- after an outage
    (
        "calls that have waited are not all given to the first process that is back",
        {"connections": 3},
        "call, refuse 0, call, call, call, call, call, wait 0.1, up 1, 1 on 1, 2 waiting,"
        " answer 1, 2 on 1, 3 waiting, wait 0.1, up 2, 3 on 2, 4 waiting, wait 0.1, up 3, 4 on 3,"
        " wait 0.5, 5 on 1, 6 on 2, answer 2",
        {1: "ok", 2: "ok"},
    ),
    (
        "a server that sends its callers away at once is left alone for a while",
        {"connections": 1},
        "call, up 0, answer 1, goaway 0, call, up 1, answer 2, call, cancel 3, wait 0.2, open 2",
        {1: "ok", 2: "ok"},
    ),
    # -- peers that speak something else
    (
        "an answer too many is not taken for the next call's",
        {"dialect": "bare", "connections": 1},
        "call, call, connect 0, twice 0 1, 0 CLOSED, 2 waiting, connect 1, answer 2",
        {1: "ok", 2: "ok"},
    ),
]


class Play:
    """Has the words of a history happen in a world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def step(self, words: str) -> None:
        first, *rest = words.split()
        if first.isdigit():
            self.look(int(first), " ".join(rest))
        else:
            getattr(self, first)(*rest)
        self.world.check()

    def look(self, number: int, what: str) -> None:
        if what in Stage.__members__:
            assert self.world.opened[number].stage == Stage[what]
        else:
            assert self.world.places(number) == [what.removeprefix("on ")]

    def call(self, *options: str) -> None:
        given = dict(option.split("=") for option in options)
        self.world.call(int(given.get("retries", 0)), float(given.get("timeout", 60)))

    def connect(self, number: str, room: str = "1000000") -> None:
        self.world.connect(self.world.opened[int(number)], int(room))

    def refuse(self, number: str) -> None:
        self.world.refuse(self.world.opened[int(number)])

    def pong(self, number: str) -> None:
        self.world.pong(self.world.opened[int(number)])

    def up(self, number: str) -> None:
        self.connect(number)
        self.pong(number)

    def answer(self, id: str) -> None:
        self.world.answer(self.where(id), int(id))

    def fail(self, id: str, code: str) -> None:
        self.world.answer(self.where(id), int(id), int(code))

    def late(self, number: str, id: str) -> None:
        self.world.answer(self.world.opened[int(number)], int(id))

    def twice(self, number: str, id: str) -> None:
        self.world.say(self.world.opened[int(number)], int(id), int(id))

    def where(self, id: str) -> Any:
        (number,) = self.world.places(int(id))
        return self.world.opened[int(number)]

    def goaway(self, number: str) -> None:
        self.world.goaway(self.world.opened[int(number)])

    def unread(self, number: str, what: str) -> None:
        """Lies in the socket until the connection looks."""
        texts = {
            "goaway": b'{"jsonrpc":"2.0","method":"gtask.goaway"}\n',
            "answer": b'{"jsonrpc":"2.0","result":1,"id":1}\n',
            "pong": b'{"jsonrpc":"2.0","result":"pong","id":0}\n',
            "end": b"",
        }
        self.world.now += 0.01
        self.world.opened[int(number)]._socket.input.append(texts[what])

    def lose(self, number: str) -> None:
        self.world.lose(self.world.opened[int(number)])

    def cancel(self, id: str) -> None:
        self.world.calls[int(id)].cancel()

    def close(self) -> None:
        self.world.pool.close()

    def wait(self, seconds: str) -> None:
        self.world.wait(float(seconds))

    def open(self, count: str) -> None:
        assert len(self.world.opened) == int(count)


@pytest.mark.parametrize(
    ("options", "history", "ends"),
    [history[1:] for history in HISTORIES],
    ids=[history[0] for history in HISTORIES],
)
def test_history(
    make_world: Callable[..., World], options: dict[str, Any], history: str, ends: dict[int, str]
) -> None:
    world = make_world(**options)
    play = Play(world)
    for words in history.split(","):
        play.step(words)
    assert {id: (world.ends[id] or ["-"])[0] for id in ends} == ends
    world.finish()


def test_what_servers_hand_back_again_and_again_ends(make_world: Callable[..., World]) -> None:
    world = make_world(connections=1)
    world.call(timeout=600.0)
    for count in range(1, MAX_MOVES + 2):
        while not world.places(1)[0].isdigit():
            for connection in world.opened:
                if world.is_connecting(connection):
                    world.connect(connection)
                    world.pong(connection)
            world.wait(0.01)
        world.answer(world.opened[int(world.places(1)[0])], 1, DRAINING)
        assert world.ends[1] == (["Draining"] if count > MAX_MOVES else [])
    world.finish()


def test_users_code_runs_when_all_that_was_read_is_accounted_for(
    make_world: Callable[..., World],
) -> None:
    world = make_world(connections=1)
    states = []

    def look() -> None:
        states.append((dict(world.pool.calls), len(world.pool.connections)))

    world.call(at_end=look)
    world.call(at_end=look)
    world.connect(world.opened[0])
    world.pong(world.opened[0])
    results = [{"jsonrpc": "2.0", "result": id, "id": id} for id in (1, 2)]
    goaway = {"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}}
    world.say(world.opened[0], results[0], goaway, results[1])
    assert states == [({}, 0), ({}, 0)]
    world.finish()
