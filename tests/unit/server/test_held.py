"""What a peer can make a process hold, and how long it may stand still; on a real service."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading

import gevent
import pytest
from gevent.event import Event

from gtask import current_task
from gtask.binding import TaskFunction
from gtask.errors import INVALID_REQUEST, OVERLOADED
from gtask.net.reactor import current_reactor

from ...support.served import Served, let_loop_turn, result, rpc, until

MIB = 1 << 20


def big(size):
    return "x" * size


def later(size, seconds=0.02):
    gevent.sleep(seconds)
    return "x" * size


def report(times, size):
    for number in range(times):
        current_task().progress(number, times, "x" * size)


class Gate:
    def __init__(self):
        self.event = Event()

    def hold(self, value=None):
        self.event.wait()
        return value if type(value) is int else None


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def serve(gate):
    with contextlib.ExitStack() as stack:

        def start(**options):
            blocking = TaskFunction(report, "report_from_thread", blocking=True)
            functions = (big, later, report, blocking, gate.hold)
            served = stack.enter_context(Served(*functions, **options))
            stack.callback(gate.event.set)
            return served

        yield start


@pytest.fixture
def debts():
    """Those of this process, as they are set for one test."""
    debts = current_reactor().debts
    before = (debts.max_bytes, debts.send_timeout, debts.handshake_timeout)
    yield debts
    debts.max_bytes, debts.send_timeout, debts.handshake_timeout = before


# -- replies that nobody takes -----------------------------------------------------------------


@pytest.mark.parametrize("function", ["big", "later"])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_no_more_is_started_for_who_does_not_read(serve, function, concurrency):
    served = serve(max_send_buffer_bytes=MIB, concurrency=concurrency)
    peer = served.connect()
    peer.send(*(rpc(id, function, 300_000) for id in range(60)))
    gevent.sleep(0.5)
    assert served.connection._buffered < MIB + (concurrency + 2) * 300_000
    assert {reply["id"] for reply in peer.lines(60)} == set(range(60))
    assert served.engine.turns.waits == 0


def test_others_have_their_turn_meanwhile(serve):
    served = serve(max_send_buffer_bytes=MIB, concurrency=1)
    greedy, other = served.connect(), served.connect()
    greedy.send(*(rpc(id, "later", 300_000) for id in range(50)))
    gevent.sleep(0.3)
    other.bare("later", 3)
    assert other.line() == "xxx"
    assert served.engine.turns.waits > 10
    greedy.bare("gtask.health")
    assert len(greedy.lines(51)) == 51


def test_calls_set_aside_end_at_their_time_and_with_the_service(serve):
    served = serve(max_send_buffer_bytes=MIB, concurrency=1)
    peer = served.connect()
    options = {"options": {"timeout": 0.6}}
    calls = [rpc(id, "gtask.call") for id in range(50)]
    for call in calls:
        call["params"] = {"function": "later", "args": [300_000], **options}
    peer.send(*calls)
    until(lambda: served.engine.turns._aside_calls > 10)
    until(lambda: not served.engine.turns.waits)
    replies = peer.lines(50)
    assert any("error" in reply for reply in replies)
    assert not served.engine.turns.pending_bytes

    peer.send(*(rpc(id, "later", 300_000) for id in range(50)))
    until(lambda: served.engine.turns._aside_calls > 10)
    served.service.stop()
    assert not served.engine.turns.waits
    assert len(peer.lines(50)) == 50


def test_calls_of_one_that_has_gone_are_run(serve):
    served = serve(max_send_buffer_bytes=MIB, concurrency=1)
    peer = served.connect()
    peer.send(*(rpc(id, "later", 300_000) for id in range(30)))
    until(lambda: served.engine.turns._aside_calls > 10)
    peer.close()
    until(lambda: served.engine.turns.waits == served.engine.turns.running == 0)
    assert not served.engine.turns.pending_bytes
    assert not current_reactor().debts.unsent_bytes


def test_replies_are_not_collected_beyond_a_send(serve):
    served = serve()
    peer = served.connect(socket.SOCK_SEQPACKET)
    peer.send(*({"function": "big", "args": [20_000]} for _ in range(20)))
    seen = len(peer.packet())
    assert seen == 4  # 20 kB each, and 64 kB are a good send
    while seen < 20:
        seen += len(peer.packet())


@pytest.mark.parametrize("function", ["report", "report_from_thread"])
def test_reports_are_not_collected(serve, function):
    served = serve(max_send_buffer_bytes=MIB)
    peer = served.connect()
    call = rpc(1, "gtask.call")
    call["params"] = {"function": function, "args": [3000, 1000], "options": {"progress": True}}
    peer.send(call)
    until(lambda: served.engine.stats.done)
    gevent.sleep(0.3)
    assert served.connection._buffered < MIB + 3000
    lines = []
    while not lines or "result" not in lines[-1]:
        lines.append(peer.line())
    assert len(lines) > 50


def test_reports_of_a_thread_wait_for_a_busy_loop_in_small_number(serve):
    served = serve()
    reports = served.engine.reports
    sent = []

    class Noted:
        def send_progress(self, line):
            sent.append(line)

    thread = threading.Thread(
        target=lambda: [reports.send_from_thread(Noted(), b"%d" % n) for n in range(10_000)]
    )
    thread.start()
    thread.join()
    until(lambda: sent)
    let_loop_turn()
    assert sent == [b"%d" % n for n in range(9900, 10_000)]


# -- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["hold", "later"])
def test_past_its_share_a_connection_is_not_read(serve, gate, function):
    served = serve(max_pending_bytes=4 * MIB, max_frame_bytes=2 * MIB)
    peer = served.connect()
    text = "x" * 300_000
    args = [text] if function == "hold" else [1, 0.2]
    extra = {} if function == "hold" else {"note": text}
    sender = gevent.spawn(peer.send, *(rpc(id, function, *args) | extra for id in range(30)))
    until(lambda: served.connection._outstanding)
    gevent.sleep(0.1)
    assert served.engine.turns.pending_bytes <= MIB + 310_000
    assert served.connection._outstanding <= 5
    gate.event.set()
    assert {reply["id"] for reply in peer.lines(30)} == set(range(30))
    sender.get()
    until(lambda: not served.engine.turns.pending_bytes)


def test_what_is_all_lists_counts_as_what_it_takes(serve):
    served = serve(max_pending_bytes=400 * MIB, max_frame_bytes=2 * MIB)
    peer = served.connect()
    gevent.spawn(peer.send, b'{"function":"hold","args":[[%b[]]]}\n' % (b"[]," * 300_000))
    until(lambda: served.engine.turns.pending_bytes)
    assert 20 * MIB < served.engine.turns.pending_bytes < 60 * MIB


def test_past_that_of_all_large_calls_and_those_that_must_wait_are_refused(serve, gate):
    served = serve(max_pending_bytes=MIB, max_frame_bytes=2 * MIB, concurrency=5)
    text = "x" * 300_000
    peers = [served.connect() for _ in range(5)]
    for peer in peers:
        peer.rpc(1, "hold", text)
    replies = [peer.line() for peer in peers[3:]]
    assert [reply["error"]["code"] for reply in replies] == [OVERLOADED] * 2
    assert replies[0]["error"]["data"] == {"retry_after": 1.0}
    other = served.connect()
    other.send(rpc(1, "big", 3))  # a small one comes in, as there is a turn
    assert other.line() == result(1, "xxx")
    for id in range(2, 4):
        other.rpc(id, "hold")
    until(lambda: served.engine.turns.is_full)
    other.rpc(4, "hold", text)
    assert other.line()["error"]["code"] == OVERLOADED
    other.bare("gtask.health")
    assert other.line()["status"] == "busy"
    gate.event.set()
    assert {peer.line()["id"] for peer in peers[:3]} == {1}


def test_a_call_alone_may_be_as_large_as_a_frame(serve, gate):
    served = serve(max_pending_bytes=1000, max_frame_bytes=2 * MIB)
    gate.event.set()
    peer = served.connect()
    peer.bare("hold", "x" * 300_000)
    assert peer.line() is None


def test_arguments_count_until_the_task_has_ended(serve, gate):
    served = serve()
    peer = served.connect()
    call = rpc(1, "gtask.call")
    args = ["x" * 100_000]
    call["params"] = {"function": "hold", "args": args, "options": {"timeout": 0.01}}
    peer.send(call)
    assert "error" in peer.line()
    until(lambda: not served.engine.turns.running)
    assert served.engine.turns.pending_bytes == served.connection._pending_bytes == 0


def test_a_batch_counts_with_what_it_has_answered(serve, gate):
    served = serve(max_send_buffer_bytes=MIB, max_frame_bytes=8 * MIB)
    peer = served.connect()
    peer.send([rpc(1, "hold"), *(rpc(id, "big", 500_000) for id in range(2, 7))])
    until(lambda: served.connection._batch_bytes > 2_000_000)
    assert served.engine.turns.pending_bytes > 2_000_000
    peer.send(rpc(9, "big", 1))
    assert not peer.has_something()  # it is held back
    gate.event.set()
    assert len(peer.line()) == 6
    assert peer.line()["id"] == 9
    assert served.engine.turns.pending_bytes == served.connection._batch_bytes == 0


# -- frames that are not whole -----------------------------------------------------------------


def test_halves_of_frames_count_together_and_the_slowest_goes(serve, debts):
    debts.max_bytes = MIB
    served = serve(max_frame_bytes=2 * MIB)
    peers = []
    for _ in range(3):
        peers.append(served.connect())
        peers[-1].send(b'{"function":"big","args":[1],"x":"' + b"x" * 250_000)
        until(lambda: debts.unfinished_bytes > len(peers) * 250_000)
        gevent.sleep(1.1)
    assert not peers[0].has_bytes()
    honest = served.connect()
    honest.send(b'{"function":"big","args":[1],"x":"' + b"x" * 500_000)
    assert peers[0].line()["error"]["code"] == OVERLOADED
    assert peers[0].has_ended()
    honest.send(b'"}\n')
    assert honest.line() == "x"
    peers[2].send(b'"}\n')
    assert peers[2].line() == "x"
    for peer in peers:
        peer.close()
    until(lambda: not debts.unfinished_bytes)


def test_a_frame_that_stands_still_ends_its_connection(serve, debts):
    debts.send_timeout = 0.2
    served = serve()
    peer, honest = served.connect(), served.connect()
    peer.send(b'{"function":')
    honest.bare("later", 1, 0.5)
    error = peer.line()["error"]
    assert (error["code"], error["message"]) == (
        INVALID_REQUEST,
        "no more of a frame for 0.2 s",
    )
    assert peer.has_ended()
    assert honest.line() == "x"
    assert served.engine.connections


def test_while_a_call_holds_it_back_a_peer_can_add_no_more_than_a_read(serve, gate):
    served = serve(max_frame_bytes=8 * MIB)
    peer = served.connect()
    peer.bare("hold", 5)
    until(lambda: served.engine.turns.running)
    sender = gevent.spawn(peer.send, b'{"function":"big","args":[1],"x":"%b"}\n' % (b"x" * 4 * MIB))
    gevent.sleep(0.2)
    assert served.connection.bytes_read < 200_000
    gate.event.set()
    assert peer.lines(2) == [5, "x"]
    sender.get()


def test_the_end_of_a_connection_gives_its_half_frame_back(serve, debts):
    served = serve()
    peer = served.connect()
    peer.send(b"x" * 100_000)
    until(lambda: debts.unfinished_bytes > 100_000)
    connection = served.connection
    peer.close()
    until(lambda: not served.engine.connections)
    assert debts.unfinished_bytes == 0
    assert connection._decoder.partial is None


# -- standing still ----------------------------------------------------------------------------


def test_a_peer_that_takes_nothing_is_dropped(serve, debts, caplog):
    debts.send_timeout = 0.3
    served = serve(max_frame_bytes=8 * MIB)
    peer, other = served.connect(), served.connect()
    peer.bare("big", 5_000_000)
    other.bare("later", 1, 0.6)
    until(lambda: len(served.engine.connections) == 1)
    assert other.line() == "x"
    assert "took nothing for 0.3 s" in caplog.text
    assert debts.unsent_bytes == 0


def test_idle_is_who_neither_sends_nor_takes(serve):
    served = serve(max_frame_bytes=8 * MIB)
    silent, sending, taking, stuck, late = (served.connect() for _ in range(5))
    taking.bare("big", 5_000_000)
    stuck.bare("big", 5_000_000)
    sending.send(b'{"function":')
    until(lambda: sum(bool(c._output) for c in served.engine.connections) == 2)
    gevent.sleep(0.3)
    sending.send(b'"big",')
    taking.socket.recv(1_000_000)
    let_loop_turn()
    late.send({"function": "big", "args": [2]})  # not read yet when the others are judged
    served.service.close_idle(0.2)
    assert silent.has_ended()
    assert len(served.engine.connections) == 3
    assert late.line() == "xx"
    sending.send(b'"args":[3]}\n')
    assert sending.line() == "xxx"
    gc.collect()


def test_who_has_just_been_answered_is_not_idle(serve):
    served = serve()
    peer = served.connect()
    peer.bare("later", 1, 0.3)
    assert peer.line() == "x"
    served.service.close_idle(0.2)
    assert len(served.engine.connections) == 1


def test_a_drain_leaves_time_to_take_what_was_asked_for(serve):
    served = serve(max_frame_bytes=8 * MIB)
    peer = served.connect()
    peer.bare("big", 5_000_000)
    until(lambda: served.connection._output)
    served.service.drain()
    gevent.sleep(0.05)
    served.service.close_idle(0.01)
    assert len(peer.line()) == 5_000_000
