"""How fast a peer is read and answered, and when its connection ends: over a real socket pair."""

from __future__ import annotations

import json
import socket
import time

import gevent
import pytest
from gevent.event import Event

from gtask import current_task
from gtask import scoreboard as board
from gtask.binding import TaskFunction
from gtask.errors import INVALID_REQUEST
from gtask.server import dispatch
from gtask.server.pace import MAX_OUTSTANDING

from ...support.served import Served, let_loop_turn, result, rpc, until


class Gates:
    """Tasks that wait until the test opens their gate, and others that do not wait."""

    def __init__(self):
        self.events = {}
        self.started = []

    def hold(self, key):
        self.started.append(key)
        self.events.setdefault(key, Event()).wait()
        return key

    def open(self, *keys):
        for key in keys:
            self.events.setdefault(key, Event()).set()


def echo(value=None):
    return value


def text(length):
    return "x" * length


def outstanding(served):
    return served.connection.report()["outstanding"]


@pytest.fixture
def gates():
    return Gates()


@pytest.fixture
def serve(gates):
    """Serve `hold`, `echo` and `text`; options are the engine's."""
    running = []

    def start(*functions, **options):
        running.append(Served(gates.hold, echo, text, *functions, **options))
        return running[-1]

    yield start
    for served in running:
        gates.open(*gates.started)
        served.__exit__()


@pytest.fixture
def served(serve):
    return serve()


@pytest.fixture
def peer(served):
    return served.connect()


# -- frames in ------------------------------------------------------------------------------------

MIXED = b"".join(
    json.dumps(message).encode() + b"\r\n"
    for message in (
        {"function": "echo", "args": ["하나"]},
        rpc(1, "echo", [1, 2]),
        {"function": "nothing"},
        [rpc(2, "echo", "two"), rpc(3, "echo"), {"jsonrpc": "2.0", "method": "echo"}],
        {"method": "echo", "id": 4},
        {"function": "echo", "args": [None]},
    )
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000])
def test_any_split_gives_the_same_replies(served, peer, size):
    other = served.connect()
    other.send(MIXED)
    other.half_close()
    expected = other.rest()
    assert [each for each in expected if type(each) is not list] == [
        "하나",
        result(1, [1, 2]),
        expected[2],
        {"result": None, "id": 4},
        None,
    ]
    assert [result(2, "two"), result(3, None)] in expected
    for start in range(0, len(MIXED), size):
        peer.send(MIXED[start : start + size])
        let_loop_turn(1)
    peer.half_close()
    assert sorted(map(repr, peer.rest())) == sorted(map(repr, expected))


def test_an_unfinished_frame_at_the_end_is_dropped(served, peer):
    peer.send(b'{"function":"echo","args":[1]}\n{"function":"echo"')
    peer.half_close()
    assert peer.rest() == [1]
    until(lambda: not served.engine.connections)


def test_a_frame_too_long_is_answered_last_and_then_the_stream_ends(serve, gates):
    served = serve(max_frame_bytes=100)
    peer = served.connect()
    peer.send(rpc(1, "hold", "a"), rpc(2, "echo", 2), b"x" * 101)
    assert peer.line() == result(2, 2)
    assert not peer.has_something()
    gates.open("a")
    assert peer.line() == result(1, "a")
    assert peer.line()["error"]["code"] == INVALID_REQUEST
    peer.send(b"y" * 5000)
    assert peer.has_ended()


# -- pace -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 100, 5000])
@pytest.mark.parametrize("packet", [1, 70, 1000])
def test_of_a_peer_with_too_many_calls_no_more_are_taken_up(serve, gates, concurrency, packet):
    served = serve(concurrency=concurrency)
    peer = served.connect()
    calls = [rpc(id, "hold", 0) for id in range(MAX_OUTSTANDING + 400)] + [rpc("last", "echo")]

    def send():
        for start in range(0, len(calls), packet):
            peer.send(*calls[start : start + packet])
            let_loop_turn(1)

    sender = gevent.spawn(send)
    until(lambda: outstanding(served) == MAX_OUTSTANDING)
    assert not peer.has_something()
    assert outstanding(served) == MAX_OUTSTANDING
    gates.open(0)
    assert {each["id"] for each in peer.lines(len(calls))} == {each["id"] for each in calls}
    sender.get()


def test_a_peer_that_does_not_read_is_not_read(serve):
    served = serve(max_send_buffer_bytes=10_000)
    peer = served.connect()
    for _ in range(10):
        peer.send({"function": "text", "args": [1_000_000]})
        let_loop_turn(2)
    assert served.stats.done < 10
    assert [len(line) for line in peer.lines(10)] == [1_000_000] * 10
    assert served.stats.done == 10
    assert served.connection.report()["send_buffer"] == 0


def test_replies_of_one_read_go_out_in_one_go(served):
    peer = served.connect(socket.SOCK_SEQPACKET)
    peer.send(*(rpc(id, "echo", id) for id in range(5)))
    assert peer.packet() == [result(id, id) for id in range(5)]


def test_replies_before_a_call_that_blocks_do_not_wait_for_it(served, gates):
    peer = served.connect(socket.SOCK_SEQPACKET)
    peer.send(rpc(1, "echo", 1), rpc(2, "hold", "a"), rpc(3, "echo", 3))
    assert peer.packet() == [result(1, 1), result(3, 3)]
    gates.open("a")
    assert peer.packet() == [result(2, "a")]


def test_a_reply_waits_only_a_moment_for_those_behind_it(serve):
    seen = []

    def look():
        """What the peer has in hand when this begins; it takes longer than a reply may wait."""
        seen.append(peer.has_bytes())
        end = time.monotonic() + 1.1 * dispatch.CORK_SECONDS
        while time.monotonic() < end:
            pass

    peer = serve(look).connect()
    peer.send(*(rpc(id, "look") for id in range(3)))
    peer.lines(3)
    assert seen == [False, True, True]


def test_a_peer_with_much_to_do_does_not_hold_up_the_others(serve):
    order = []

    def work(name):
        order.append(name)
        end = time.monotonic() + dispatch.ROUND_SECONDS / 3
        while time.monotonic() < end:
            pass

    served = serve(work)
    busy, other = served.connect(), served.connect()
    busy.send(*(rpc(id, "work", "busy") for id in range(20)))
    other.send(rpc(0, "work", "other"))
    other.line()
    busy.lines(20)
    assert order.index("other") < 10


# -- the order of bare calls ----------------------------------------------------------------------


def test_a_bare_call_that_blocks_holds_back_all_that_is_behind_it(peer, gates):
    peer.bare("hold", "a")
    peer.bare("echo", "b")
    peer.rpc(1, "echo", "c")
    assert not peer.has_something()
    gates.open("a")
    assert peer.lines(3) == ["a", "b", result(1, "c")]


def test_a_bare_call_does_not_wait_for_the_json_rpc_calls_before_it(peer, gates):
    peer.send(rpc(1, "hold", "a"), {"function": "echo", "args": ["b"]})
    assert peer.line() == "b"
    gates.open("a")
    assert peer.line() == result(1, "a")


def test_a_bare_call_that_waits_for_a_turn_holds_back_its_own_connection_only(serve, gates):
    served = serve(concurrency=1)
    busy, bare, free = served.connect(), served.connect(), served.connect()
    busy.rpc(1, "hold", "a")
    until(lambda: gates.started)
    bare.send(*({"function": "echo", "args": [n]} for n in range(3)))
    free.rpc(2, "gtask.ping")
    assert free.line() == result(2, "pong")
    assert not bare.has_something()
    gates.open("a")
    assert bare.lines(3) == [0, 1, 2]
    assert busy.line() == result(1, "a")


# -- the end --------------------------------------------------------------------------------------


def test_a_peer_that_has_closed_its_half_gets_its_answers_and_then_the_end(served, peer, gates):
    peer.send(rpc(1, "hold", "a"), rpc(2, "echo", 2))
    peer.half_close()
    assert peer.line() == result(2, 2)
    assert not peer.has_something()
    gates.open("a")
    assert peer.rest() == [result(1, "a")]
    until(lambda: not served.engine.connections)
    assert served.stats.connections == 0


def test_a_peer_that_has_gone_leaves_its_tasks_running(served, peer, gates):
    peer.rpc(1, "hold", "a")
    until(lambda: gates.started)
    peer.close()
    let_loop_turn()
    assert served.engine.turns.running == 1
    gates.open("a")
    until(lambda: not served.engine.turns.running)
    until(lambda: not served.engine.connections)


def test_goaway_is_for_those_who_understand_it(served, gates):
    rpc_peer, bare_peer, new_peer = served.connect(), served.connect(), served.connect()
    rpc_peer.rpc(1, "echo", 1)
    bare_peer.bare("echo", 1)
    rpc_peer.line(), bare_peer.line()
    served.service.drain()
    goaway = {"jsonrpc": "2.0", "method": "gtask.goaway", "params": {}}
    assert rpc_peer.line() == goaway
    assert not bare_peer.has_something()
    new_peer.rpc(2, "echo", 2)  # it turns out only now
    assert new_peer.lines(2) == [goaway, result(2, 2)]
    rpc_peer.rpc(3, "echo", 3)
    assert rpc_peer.line() == result(3, 3), "what still comes is answered"


def test_a_drain_closes_a_bare_connection_between_two_calls(served, peer, gates):
    peer.bare("hold", "a")
    until(lambda: gates.started)
    served.service.drain()
    peer.bare("echo", "read before the end")
    assert not peer.has_something()
    gates.open("a")
    assert peer.lines(2) == ["a", "read before the end"]
    assert peer.has_ended()
    until(lambda: served.service.is_idle)


def test_idle_connections_are_closed_and_those_with_calls_are_not(served, gates):
    idle, busy = served.connect(), served.connect()
    busy.rpc(1, "hold", "a")
    until(lambda: gates.started)
    served.service.close_idle(3600)
    assert len(served.engine.connections) == 2
    served.service.close_idle(-1)
    assert idle.has_ended()
    assert len(served.engine.connections) == 1
    gates.open("a")
    assert busy.line() == result(1, "a")


def test_a_drain_waits_for_a_call_that_is_half_here(served):
    whole, half = served.connect(), served.connect()
    half.send(b'{"function":"echo",')
    until(lambda: len(served.engine.connections) == 2)
    until(lambda: any(each._decoder.is_mid_frame for each in served.engine.connections))
    served.service.drain()
    served.service.close_idle(-1)
    assert whole.has_ended()
    assert len(served.engine.connections) == 1
    half.send(b'"args":[5]}\n')
    assert half.line() == 5
    assert half.has_ended()


def test_otherwise_nobody_may_take_for_ever_to_say_it(served):
    half = served.connect()
    half.send(b'{"function":"echo",')
    until(lambda: any(each._decoder.is_mid_frame for each in served.engine.connections))
    served.service.close_idle(-1)
    assert half.has_ended()


def test_a_drain_does_not_end_behind_an_answer_what_is_half_here(served, peer, gates):
    peer.bare("hold", "a")
    until(lambda: gates.started)
    served.service.drain()
    peer.send(b'{"function":"echo",')
    until(lambda: any(each._decoder.is_mid_frame for each in served.engine.connections))
    gates.open("a")
    assert peer.line() == "a"
    peer.send(b'"args":[5]}\n')
    assert peer.line() == 5
    assert peer.has_ended()


def test_the_octets_of_a_connection_are_counted_when_it_ends(served, peer):
    message = b'{"function":"echo","args":[7]}\n'
    peer.send(message)
    peer.half_close()
    assert peer.rest() == [7]
    until(lambda: not served.engine.connections)
    assert served.board.ints[board.BYTES_READ] == len(message)
    assert served.board.ints[board.BYTES_WRITTEN] == 2


def test_the_operator_sees_what_a_connection_does(served, peer, gates):
    assert served.connection.report()["protocol"] == "bare"
    peer.rpc(1, "hold", "a")
    until(lambda: gates.started)
    report = served.connection.report()
    assert report["protocol"] == "json-rpc"
    assert report["peer"] == "127.0.0.1:12345"
    assert report["outstanding"] == 1
    assert report["idle_seconds"] >= 0
    assert repr(served.connection) == "<TaskConnection 127.0.0.1:12345 OPEN 1>"


# -- progress -------------------------------------------------------------------------------------


def test_progress_comes_in_between_and_nothing_after_the_answer(serve):
    said = []

    def tell(key):
        said.append(current_task())
        said[-1].progress(1, 2, key)
        gevent.sleep(0)
        said[-1].progress(2, 2, key)
        return key

    peer = serve(tell).connect()
    params = {"function": "tell", "args": ["k"], "options": {"progress": True}}
    peer.send({"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": 7})
    first, second, last = peer.lines(3)
    assert first["params"] == {"id": 7, "done": 1, "total": 2, "note": "k"}
    assert second["params"]["done"] == 2
    assert last == result(7, "k")
    said[0].progress(3, 2)
    assert not peer.has_something()


def test_progress_of_a_task_that_does_not_block_arrives_while_it_runs(serve):
    heard = []

    def tell():
        current_task().progress(1)
        heard.append(peer.has_bytes())

    peer = serve(tell).connect()
    params = {"function": "tell", "options": {"progress": True}}
    peer.send({"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": 7})
    assert len(peer.lines(2)) == 2
    assert heard == [True]


def test_progress_of_a_native_thread_arrives(serve):
    def tell():
        current_task().progress(1)
        return "done"

    peer = serve(TaskFunction(tell, blocking=True)).connect()
    params = {"function": "tell", "options": {"progress": True}}
    peer.send({"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": 7})
    assert [each.get("result", "progress") for each in peer.lines(2)] == ["progress", "done"]


def test_progress_is_dropped_while_the_peer_reads_too_slowly(serve):
    def tell():
        for number in range(20):
            current_task().progress(number, note="x" * 100_000)
        return "done"

    served = serve(tell, max_send_buffer_bytes=10_000)
    peer = served.connect()
    params = {"function": "tell", "options": {"progress": True}}
    peer.send({"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": 7})
    heard = 0
    while (message := peer.line()) != result(7, "done"):
        assert message["method"] == "gtask.progress"
        heard += 1
    assert heard < 20
