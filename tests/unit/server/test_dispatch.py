"""From frames to tasks to replies: a task connection on the real hub, over a real socket pair."""

from __future__ import annotations

import contextlib
import contextvars
import json
import logging
from collections import Counter

import gevent
import gevent.local
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gtask import current_task
from gtask.binding import TaskFunction
from gtask.errors import (
    BAD_ARGUMENTS,
    DRAINING,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    OVERLOADED,
    PARSE_ERROR,
    TASK_FAILED,
    TIMED_OUT,
    UNKNOWN_FUNCTION,
    BadArguments,
    InternalError,
    TaskCancelled,
    TaskTimeout,
)
from gtask.server import limits

from ...support.served import Served, let_loop_turn, result, rpc, until

variable = contextvars.ContextVar("variable", default="unset")


class Tasks:
    """Tasks whose gates the test opens, and what was seen of them."""

    def __init__(self):
        self.gate = Event()
        self.seen = []

    def hold(self, key=None):
        try:
            self.gate.wait()
        except BaseException as error:
            self.seen.append(type(error))
            raise
        return key

    def survive(self, times):
        """Ignore so many ends."""
        for _ in range(times):
            with contextlib.suppress(BaseException):
                self.gate.wait()
        self.seen.append("survived")
        self.gate.wait()


def echo(value=None):
    return value


def add(a, b=1, *, c=0):
    return a + b + c


def nap(key, turns):
    for _ in range(turns):
        gevent.sleep(0)
    return key


def fail(words="no"):
    raise ValueError(words)


def not_json():
    return {1, 2}


def mark(value):
    before = variable.get()
    variable.set(value)
    return before


def who():
    mine = current_task()
    gevent.sleep(0)
    assert current_task() is mine
    return [mine.id, mine.peer]


FUNCTIONS = (echo, add, nap, fail, not_json, mark, who)


@pytest.fixture
def tasks():
    return Tasks()


@pytest.fixture
def serve(tasks):
    running = []

    def start(*functions, **options):
        running.append(Served(*FUNCTIONS, tasks.hold, tasks.survive, *functions, **options))
        return running[-1]

    yield start
    tasks.gate.set()
    for served in running:
        let_loop_turn()
        served.__exit__()


@pytest.fixture
def served(serve):
    return serve()


@pytest.fixture
def peer(served):
    return served.connect()


def call(id, function, *args, **options):
    """A `gtask.call`."""
    params = {"function": function, "args": args, "options": options}
    return {"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": id}


def code_of(reply):
    return reply["error"]["code"]


# -- one call -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "value"), [([1], 2), ([1, 2], 3), ({"a": 1, "c": 5}, 7), ({"a": 1, "b": 0}, 1)]
)
def test_arguments_by_position_and_by_name_in_each_form(peer, args, value):
    peer.send(
        {"function": "add", "args": args},
        {"jsonrpc": "2.0", "method": "add", "params": args, "id": 1},
        {"method": "add", "params": args, "id": "x"},
        {"function": "add", "args": args, "timeout": 5},
        call(2, "add") | {"params": {"function": "add", "args": args}},
    )
    loose = {"result": value, "id": "x"}
    assert peer.lines(5) == [value, result(1, value), loose, value, result(2, value)]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\n", PARSE_ERROR),
        (b"{\n", PARSE_ERROR),
        ([], INVALID_REQUEST),
        (7, INVALID_REQUEST),
        ({}, INVALID_REQUEST),
        ({"jsonrpc": "1.0", "method": "echo", "id": 1}, INVALID_REQUEST),
        ({"jsonrpc": "2.0", "method": "echo", "id": True}, INVALID_REQUEST),
        ({"jsonrpc": "2.0", "result": 1, "id": 1}, INVALID_REQUEST),
        ({"function": "echo", "args": 7}, BAD_ARGUMENTS),
        ({"function": "echo", "timeout": -1}, INVALID_REQUEST),
        ({"function": "add"}, BAD_ARGUMENTS),
        ({"function": "nothing"}, UNKNOWN_FUNCTION),
        (rpc(1, "add"), BAD_ARGUMENTS),
        (rpc(1, "nothing"), UNKNOWN_FUNCTION),
        (call(1, "echo", timeout="soon"), BAD_ARGUMENTS),
        ({"function": "not_json"}, INTERNAL_ERROR),
        (call(1, "not_json"), INTERNAL_ERROR),
        ({"function": "fail"}, TASK_FAILED),
        (rpc(1, "fail"), TASK_FAILED),
    ],
)
def test_what_goes_wrong_has_a_code_and_the_connection_lives(peer, message, code):
    peer.send(message)
    assert code_of(peer.line()) == code
    peer.send({"function": "echo", "args": ["alive"]})
    assert peer.line() == "alive"


def test_notifications_are_never_answered(peer, tasks):
    for method in ("echo", "fail", "nothing", "add", "not_json", "hold", "gtask.ping"):
        peer.send({"jsonrpc": "2.0", "method": method})
    peer.send({"jsonrpc": "2.0", "method": "gtask.call", "params": {"fn": 7}})
    peer.rpc(1, "echo", 1)
    assert peer.line() == result(1, 1)
    tasks.gate.set()
    assert not peer.has_something()


def test_the_current_task_is_each_callers_own(peer):
    peer.send(rpc(1, "who"), rpc("two", "who"), {"function": "who"})
    replies = sorted((peer.line() for _ in range(3)), key=str)
    peer_name = "127.0.0.1:12345"
    assert replies == sorted(
        [result(1, [1, peer_name]), result("two", ["two", peer_name]), [None, peer_name]], key=str
    )


def test_a_blocking_call_that_would_wait_for_a_thread_in_vain_is_told_so(serve):
    served = serve(TaskFunction(echo, "blocking", None, True))
    served.engine.threads.stuck = served.engine.threads.size
    assert served.service.is_full
    peer = served.connect()
    peer.send(call(1, "blocking", 5))
    error = peer.line()["error"]
    assert (error["code"], error["data"]) == (OVERLOADED, {"retry_after": 1.0})


@pytest.mark.parametrize("error", [InternalError("x"), TaskCancelled("y"), BadArguments("z")])
def test_an_error_of_a_call_that_a_task_has_made_is_the_tasks_failure(serve, caplog, error):
    def relay():
        raise error

    peer = serve(relay).connect()
    peer.send({"function": "relay"}, call(1, "relay"))
    for reply in peer.lines(2):
        told = {"type": type(error).__name__, "message": error.message}
        assert (code_of(reply), reply["error"]["data"]) == (TASK_FAILED, told)
    assert sum("Traceback" in (record.exc_text or "") for record in caplog.records) <= 2
    assert all(record.exc_info for record in caplog.records)


@pytest.mark.parametrize("how", ["one by one", "at once", "blocked"])
@pytest.mark.parametrize("dialect", ["bare", "rpc"])
def test_a_call_knows_nothing_of_the_thread_locals_of_those_before(serve, how, dialect):
    local = gevent.local.local()

    def touch(value):
        before = getattr(local, "value", None)
        local.value = value
        if how == "blocked":
            gevent.sleep(0.001)
        return [before, local.value]

    peer = serve(touch).connect()
    messages = [
        {"function": "touch", "args": [n]} if dialect == "bare" else rpc(n, "touch", n)
        for n in range(20)
    ]
    if how == "one by one":
        replies = [(peer.send(message), peer.line())[1] for message in messages]
    else:
        peer.send(*messages)
        replies = peer.lines(20)
    if dialect == "bare":
        assert replies == [[None, n] for n in range(20)]
    else:
        assert sorted((r["id"], *r["result"]) for r in replies) == [(n, None, n) for n in range(20)]


def test_a_call_knows_nothing_of_the_context_of_the_one_before(peer):
    peer.send(*({"function": "mark", "args": [n]} for n in range(3)))
    assert peer.lines(3) == ["unset"] * 3


def test_a_blocking_task_runs_in_a_native_thread(serve):
    import threading

    names = []

    def native(key):
        names.append(threading.get_ident())
        return [key, current_task().id]

    served = serve(TaskFunction(native, blocking=True))
    peer = served.connect()
    peer.rpc(5, "native", "k")
    assert peer.line() == result(5, ["k", 5])
    assert names[0] != served.engine.thread


def test_an_exception_in_a_native_thread_is_told_as_any_other(serve):
    peer = serve(TaskFunction(fail, "native_fail", blocking=True)).connect()
    peer.bare("native_fail", "why")
    assert peer.line()["error"]["data"] == {"type": "ValueError", "message": "why"}


# -- several calls --------------------------------------------------------------------------------


def test_a_json_rpc_call_that_blocks_does_not_hold_up_the_next(served, peer, tasks):
    peer.send(rpc(1, "hold", "a"), rpc(2, "hold", "b"), rpc(3, "echo", "c"))
    assert peer.line() == result(3, "c")
    assert served.engine.turns.running == 2
    tasks.gate.set()
    assert {each["id"] for each in peer.lines(2)} == {1, 2}
    until(lambda: served.engine.turns.running == 0)


def test_a_batch_is_answered_whole_when_its_last_call_is(peer, tasks):
    peer.send(
        [
            rpc(1, "echo", 1),
            rpc(2, "hold", 2),
            {"jsonrpc": "2.0", "method": "echo"},
            {"function": "echo"},
            7,
            rpc(3, "nothing"),
        ]
    )
    peer.rpc(9, "echo", 9)
    assert peer.line() == result(9, 9)
    assert not peer.has_something()
    tasks.gate.set()
    answers = peer.line()
    found = Counter(
        each["error"]["code"] if "error" in each else each["result"] for each in answers
    )
    assert found == Counter([1, 2, INVALID_REQUEST, INVALID_REQUEST, UNKNOWN_FUNCTION])


def test_a_batch_of_notifications_has_no_answer(peer):
    peer.send([{"jsonrpc": "2.0", "method": "echo"}] * 3)
    assert not peer.has_something()


def test_a_batch_that_is_too_long_is_one_error(serve):
    peer = serve(max_batch=2).connect()
    peer.send([rpc(1, "echo")] * 3)
    assert code_of(peer.line()) == INVALID_REQUEST


def test_calls_beyond_concurrency_wait_for_their_turn(serve, tasks):
    served = serve(concurrency=2)
    peers = [served.connect() for _ in range(4)]
    for number, peer in enumerate(peers):
        peer.rpc(number, "hold", number)
    until(lambda: len(served.engine.turns.waiting) == 2)
    assert served.service.is_full
    tasks.gate.set()
    assert [peer.line() for peer in peers] == [result(n, n) for n in range(4)]
    until(lambda: served.engine.turns.running == 0)


def test_stopped_it_refuses_what_waits_and_what_comes_and_ends_nothing(serve, tasks):
    served = serve(concurrency=1)
    peer = served.connect()
    peer.send(rpc(1, "hold", "a"), rpc(2, "echo"), {"function": "echo"})
    until(lambda: len(served.engine.turns.waiting) == 2)
    served.service.stop()
    assert [code_of(each) for each in peer.lines(2)] == [DRAINING] * 2
    peer.rpc(3, "echo")
    assert code_of(peer.line()) == DRAINING
    tasks.gate.set()
    assert peer.line() == result(1, "a")


def test_aborted_it_leaves_no_connection_and_a_task_that_ends_later_harms_nobody(serve, tasks):
    served = serve()
    peer = served.connect()
    peer.rpc(1, "hold", "a")
    until(lambda: served.engine.turns.running)
    served.service.abort()
    assert peer.has_ended()
    tasks.gate.set()
    until(lambda: served.engine.turns.running == 0)
    assert served.service.is_idle


# -- time limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"function": "hold", "timeout": 0.01},
        call(1, "hold", timeout=0.01),
        {"function": "limited"},
        rpc(1, "limited"),
    ],
)
def test_a_call_is_answered_at_its_deadline_and_its_task_ended(serve, tasks, message):
    served = serve(TaskFunction(tasks.hold, "limited", timeout=0.01))
    peer = served.connect()
    peer.send(message)
    assert code_of(peer.line()) == TIMED_OUT
    until(lambda: tasks.seen == [TaskTimeout])
    assert served.engine.turns.running == 0
    peer.bare("echo", "next")
    assert peer.line() == "next"


def test_a_call_that_waits_is_answered_at_its_deadline_and_never_started(serve, tasks):
    served = serve(concurrency=1)
    peer = served.connect()
    peer.rpc(1, "hold", 1)
    until(lambda: served.engine.turns.running)
    peer.send(call(2, "mark", "ran", timeout=0.01))
    assert code_of(peer.line()) == TIMED_OUT
    tasks.gate.set()
    assert peer.line() == result(1, 1)


def test_a_task_that_ignores_its_end_loses_its_turn_to_others(serve, tasks, monkeypatch):
    monkeypatch.setattr(limits, "CLEANUP_SECONDS", 0.001)
    monkeypatch.setattr(limits, "KILL_SECONDS", 0.001)
    served = serve(concurrency=1)
    abandoned = []
    served.engine.limits.on_abandoned = abandoned.append
    peer = served.connect()
    peer.send({"function": "survive", "args": [1 + limits.KILLS], "timeout": 0.01})
    assert code_of(peer.line()) == TIMED_OUT
    peer.bare("echo", "in its place")
    assert peer.line() == "in its place"
    assert abandoned == ["survive"]
    assert tasks.seen == ["survived"]
    tasks.gate.set()
    let_loop_turn()
    assert served.engine.turns.running == 0
    assert not peer.has_something()


def test_what_a_task_returns_after_its_time_goes_nowhere(serve, tasks):
    def stubborn():
        try:
            tasks.gate.wait()
        except TaskTimeout:
            return "too late"

    peer = serve(stubborn).connect()
    peer.send({"function": "stubborn", "timeout": 0.01}, {"function": "echo", "args": ["next"]})
    assert code_of(peer.line()) == TIMED_OUT
    assert peer.line() == "next"
    assert not peer.has_something()


# -- a log that fails, or blocks ------------------------------------------------------------------


@contextlib.contextmanager
def log_to(emit):
    handler = logging.Handler()
    handler.emit = emit
    logging.getLogger("gtask.tasks").addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger("gtask.tasks").removeHandler(handler)


@pytest.mark.parametrize("function", ["fail", "not_json"])
@pytest.mark.parametrize("error", [RuntimeError, SystemExit])
def test_a_log_that_fails_does_not_cost_the_caller_his_answer(served, peer, function, error):
    def emit(record):
        raise error

    with log_to(emit):
        peer.send({"function": function}, rpc(1, function), [rpc(2, function)])
        first, second, third = peer.lines(3)
    assert "error" in first
    assert (second["id"], third[0]["id"]) == (1, 2)
    assert served.engine.turns.running == 0


def test_a_task_whose_time_is_up_while_its_failure_is_logged_has_ended(serve, tasks):
    """A handler that sends over the network blocks; the time limit comes upon it there."""
    patient = TaskFunction(tasks.hold, "patient", timeout=0)
    served = serve(patient, concurrency=1, task_timeout=0.01)
    peer = served.connect()
    logging_now = Event()

    def emit(record):
        if "failed" in record.msg:
            logging_now.set()
            tasks.gate.wait()

    with log_to(emit):
        peer.rpc(1, "fail")
        logging_now.wait(5)
        assert code_of(peer.line()) == TIMED_OUT
        peer.rpc(2, "patient", "innocent")  # most likely in the same greenlet
        until(lambda: served.engine.turns.running == 1 and not served.engine.turns.waiting)
        assert {each.id for each in served.engine.turns.blocked} == {2}
        assert tasks.seen == []
    tasks.gate.set()
    assert peer.line() == result(2, "innocent")


# -- whatever comes -------------------------------------------------------------------------------

KINDS = (
    "echo",
    "nap",
    "fail",
    "unknown",
    "bad",
    "ping",
    "timeout",
)


def message_of(kind, dialect, key):
    """A message, and what its reply holds: a result, or a code."""
    function, args, expected = {
        "echo": ("echo", [key], key),
        "nap": ("nap", [key, key % 4], key),
        "fail": ("fail", [], TASK_FAILED),
        "unknown": ("nothing", [], UNKNOWN_FUNCTION),
        "bad": ("add", [], BAD_ARGUMENTS),
        "ping": ("gtask.ping", [], "pong"),
        "timeout": ("nap", [key, 1], key),
    }[kind]
    timeout = 60 if kind == "timeout" else None
    if dialect == "bare":
        message = {"function": function, "args": args}
        return message | ({"timeout": timeout} if timeout else {}), expected
    if dialect == "loose":
        return {"method": function, "params": args, "id": key}, expected
    if dialect == "notification":
        return {"jsonrpc": "2.0", "method": function, "params": args}, expected
    if timeout or dialect == "call":
        return call(key, function, *args, **({"timeout": timeout} if timeout else {})), expected
    return rpc(key, function, *args), expected


def outcome(reply):
    if type(reply) is dict and "error" in reply:
        return code_of(reply)
    return reply["result"] if type(reply) is dict else reply


@given(
    kinds=st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(["bare", "rpc", "call", "loose", "notification", "batch", "junk"]),
        ),
        max_size=25,
    ),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=8),
    concurrency=st.sampled_from([1, 2, 100]),
)
@hypothesis_settings(max_examples=60, deadline=None)
def test_each_call_is_answered_once_and_bare_ones_in_order(kinds, sizes, concurrency):
    """Messages of both dialects, cut anywhere: what follows a bare call is answered after it."""
    stream, bare, by_id, batched, junk = b"", [], {}, {}, 0
    behind = {}  # id: how many bare calls are before it
    for key, (kind, dialect) in enumerate(kinds, 1):
        if dialect == "junk":
            stream, junk = stream + b"{junk\n", junk + 1
            continue
        message, expected = message_of(kind, "rpc" if dialect == "batch" else dialect, key)
        if dialect == "batch":
            message = [message]
            batched[key] = expected
        elif dialect == "bare":
            bare.append(expected)
        elif dialect != "notification":
            by_id[key] = expected
        behind[key] = len(bare)
        stream += json.dumps(message).encode() + b"\n"

    with Served(*FUNCTIONS, concurrency=concurrency) as served:
        peer = served.connect()
        start = turn = 0
        while start < len(stream):
            size = sizes[turn % len(sizes)]
            peer.send(stream[start : start + size])
            start, turn = start + size, turn + 1
            if turn % 3 == 0:
                let_loop_turn(1)
        peer.half_close()
        replies = peer.rest()
        until(lambda: served.service.is_idle)

    seen_bare = []
    for reply in replies:
        if type(reply) is list:
            (reply,) = reply
            assert outcome(reply) == batched.pop(reply["id"])
        elif type(reply) is dict and "id" in reply:
            if reply["id"] is None:
                junk -= 1
                continue
            assert outcome(reply) == by_id.pop(reply["id"])
        else:
            seen_bare.append(outcome(reply))
            continue
        assert len(seen_bare) >= behind[reply["id"]], "a bare call before it was not answered yet"
    assert seen_bare == bare
    assert not by_id
    assert not batched
    assert junk == 0
