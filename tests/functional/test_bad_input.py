"""Input of every bad kind gets the specified answer and ends nothing."""

from __future__ import annotations

import json
import socket
import time

import pytest

from ..support.spawn import SpawnedWorker, is_alive
from ..support.wait import wait_until

MODULE = """
import math, time
from gtask import task
from gtask.errors import TaskTimeout

@task
def echo(value): return value

@task
def add(a, b=1, *, c=0): return a + b + c

@task
def nap(seconds):
    time.sleep(seconds)
    return seconds

class Json:
    def __json__(self): return '{"a":\\n1}'

circular = []; circular.append(circular)
RESULTS = {"object": object(), "nan": math.nan, "inf": [math.inf], "bytes": b"x", "set": {1},
           "circular": circular, "newline": Json(), "surrogate": "\\ud800"}

@task
def result(kind): return RESULTS[kind]

@task
def fail(kind):
    class Odd(Exception):
        def __str__(self): raise RuntimeError("no words")
    class Odder(Exception):
        def __str__(self): raise SystemExit("no words")
    raise {"value": ValueError("bad 값"), "exit": SystemExit(3), "keyboard": KeyboardInterrupt(),
           "odd": Odd(), "odder": Odder(), "base": BaseException("base")}[kind]

@task(blocking=True)
def fail_in_thread(kind): fail(kind)

def unmarked(): return "secret"
_private = task(lambda: 1)
"""
INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = hard
count = 2
max_frame_bytes = 1000000
"""


@pytest.fixture(scope="module")
def shared(module_spawn):
    worker = module_spawn(INI, hard=MODULE)
    worker.expects_traceback = True  # of the tasks that fail
    return worker


@pytest.fixture
def worker(shared):
    worker: SpawnedWorker
    with shared.unharmed() as worker, worker.peer() as bystander:
        assert bystander.bare("echo", 1) == 1
        yield worker
        assert bystander.bare("echo", 2) == 2, "another connection was touched"


@pytest.mark.parametrize(
    "line",
    [
        b"", b" ", b"{", b"nonsense", b"'x'", b'{"function": }', b'{"function":"echo","args":[NaN]}',
        b'{"function":"echo","args":[Infinity]}', b'{"function":"echo","args":[-Infinity]}',
        b'{"function":"echo","args":[01]}', b'{"function":"echo","args":[1.]}',
        b'{"function":"echo","args":[-]}', b'{"function":"echo","args":["a\tb"]}',
        b'{"function":"echo","args":["\x00"]}', b'{"function":"echo","args":["\xff"]}',
        b'{"function":"echo","args":["\xed\xa0\x80"]}', b'{"function":"echo"} trailing',
        b"\xef\xbb\xbf{}", b"[" * 100_000, b'{"a":' * 5000, b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r",
    ],
)  # fmt: skip
def test_what_is_not_json_is_a_parse_error_and_the_connection_lives(worker, line):
    with worker.peer() as peer:
        reply = peer.ask(line)
        assert reply["error"]["code"] == -32700
        assert reply["id"] is None
        assert peer.bare("echo", "alive") == "alive"


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (1, -32600),
        ("text", -32600),
        ({}, -32600),
        ({"args": [1]}, -32600),
        ({"function": 1, "args": []}, -32600),
        ({"function": None}, -32600),
        ({"function": ["echo"]}, -32600),
        ({"function": "echo", "args": 1}, -32602),
        ({"function": "echo", "args": {}}, -32602),
        ({"function": "echo", "args": {"value": 1, "other": 2}}, -32602),
        ({"function": "echo", "args": [1, 2]}, -32602),
        ({"function": "add", "args": [1, 2, 3]}, -32602),
        ({"function": "add", "args": {"self": 1}}, -32602),
        ({"function": "echo", "args": [1], "timeout": -1}, -32600),
        ({"function": "echo", "args": [1], "timeout": "soon"}, -32600),
        ({"jsonrpc": "1.0", "method": "echo", "params": [1], "id": 1}, -32600),
        ({"jsonrpc": "2.0", "method": "echo", "params": 1, "id": 1}, -32600),
        ({"jsonrpc": "2.0", "method": "echo", "params": [1], "id": 1.5}, -32600),
        ({"jsonrpc": "2.0", "method": "echo", "params": [1], "id": [1]}, -32600),
        ([{"jsonrpc": "2.0", "method": "echo", "params": [1], "id": 1}] * 101, -32600),
        *(
            ({"function": name, "args": []}, -32601)
            for name in (
                "", "unmarked", "_private", "__import__", "os.system", "hard.echo", "echo.__globals__",
                "__builtins__", "task", "math", "RESULTS", "Json", "eval", "gtask.nothing", "rpc.x",
                "echo ", "ECHO", "x" * 10000, "에코",
            )
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_called_gets_its_code(worker, message, code):
    with worker.peer() as peer:
        assert peer.ask(message)["error"]["code"] == code
        assert peer.bare("echo", "alive") == "alive"


AGAIN = [
    *(
        b'{"function":"add","args":' + rest
        for rest in (
            b'{"a":1}}', b'{"b":2,"a":1}}', b'{"c":3,"a":1}}', b"{}}", b"[1]}", b'{"a":1} }', b'{"a":1}} ', b'{"a":1}}\r',
            b'{"a":1}]', b'{"a":1}', b'{"a":1}}}', b'{"a":1},"args":{"a":2}}', b'{"a":1},"function":"echo"}',
            b'{"a":1},"timeout":5}', b'{"a":1},"b":{}}', b'{"a":NaN}}', b'{"a":01}}', b'{"a":"\xff"}}', b'{"a":1,"z":{}}}',
            b'{"a":' + b"[" * 1020 + b"]" * 1020 + b"}}", b'{"z":' + b"[" * 1022 + b"]" * 1022 + b"}}",
            b'{"z":' + b"[" * 1023 + b"]" * 1023 + b"}}", b'{"a":1}}{"a":1}}',
        )
    ),
    b'{"function": "add", "args": {"a": 1, "b": 2}}', b'{"function":"add"}', b'{"function":"adder","args":{"a":1}}',
]  # fmt: skip


@pytest.mark.parametrize("line", AGAIN)
@pytest.mark.parametrize("usual", [b'{"a":5}', b'{"a":5,"b":1}', b"[5]"])
def test_a_peer_that_calls_a_task_again_is_understood_as_at_first(worker, usual, line):
    with worker.peer() as first, worker.peer() as again:
        for _ in range(3):
            again.send(b'{"function":"add","args":%b}\n' % usual)
            assert again.line() == b"6"
        first.send(line + b"\n")
        again.send(line + b"\n")
        assert again.line() == first.line()
        assert again.bare("add", a=1) == 2


def test_bad_arguments_are_named(worker):
    with worker.peer() as peer:
        error = peer.rpc("add", {"b": 1, "z": 2})["error"]
        assert error["data"] == {"missing": ["a"], "unexpected": ["z"]}
        assert "a" in error["message"]
        assert "z" in error["message"]


@pytest.mark.parametrize("kind", ["object", "nan", "inf", "bytes", "set", "circular", "newline"])
def test_a_result_that_is_not_json_is_an_internal_error(worker, kind):
    with worker.peer() as peer:
        assert peer.bare("result", kind)["error"]["code"] == -32603
        assert peer.rpc("result", [kind])["error"]["code"] == -32603


def test_a_lone_surrogate_survives(worker):
    with worker.peer() as peer:
        assert peer.bare("result", "surrogate") == "\ud800"


@pytest.mark.parametrize("function", ["fail", "fail_in_thread"])
@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        ("value", "ValueError"),
        ("exit", "SystemExit"),
        ("keyboard", "KeyboardInterrupt"),
        ("odd", "Odd"),
        ("odder", "Odder"),
        ("base", "BaseException"),
    ],
)
def test_an_exception_is_told_without_its_traceback(worker, kind, type_, function):
    with worker.peer() as peer:
        error = peer.rpc(function, {"kind": kind})["error"]
        assert error["code"] == 1
        assert error["data"]["type"] == type_
        assert "Traceback" not in json.dumps(error)
        assert peer.bare("echo", "alive") == "alive"
    wait_until(lambda: type_ in worker.text, what="the traceback in the log")


@pytest.mark.parametrize("size", [1_000_001, 12_000_000])
def test_an_over_long_line_is_answered_and_then_closed(worker, size):
    with worker.peer() as peer:
        peer.send(b'{"function":"echo","args":[1]}\n' + b"x" * size + b"\n")
        assert peer.json() == 1
        error = peer.json()["error"]
        assert error["code"] == -32600
        assert "1000000 bytes" in error["message"]
        assert peer.is_closed()


def test_the_limit_is_exact(worker):
    with worker.peer() as peer:
        padding = 1_000_000 - len('{"function":"echo","args":[""]}')
        assert peer.bare("echo", "") == ""
        line = b'{"function":"echo","args":["%b"]}' % (b"x" * padding)
        assert len(line) == 1_000_000
        assert len(peer.ask(line)) == padding
        peer.send(line + b" \n")
        assert peer.json()["error"]["code"] == -32600
        assert peer.is_closed()


def test_one_byte_at_a_time(worker):
    with worker.peer() as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in '{"function":"echo","args":["한 글"]}\r\n'.encode():
            peer.send(bytes([byte]))
        assert peer.json() == "한 글"


def test_a_half_closed_peer_still_gets_its_answers(worker):
    with worker.peer() as peer:
        peer.send(b'{"function":"nap","args":[0.2]}\n{"function":"echo","args":["after"]}\n')
        peer.send(b'{"jsonrpc":"2.0","method":"nap","params":[0.1],"id":5}\n{"unfinished')
        peer.socket.shutdown(socket.SHUT_WR)
        assert [json.loads(line) for line in peer.rest().splitlines()] == [
            0.2,
            "after",
            {"jsonrpc": "2.0", "result": 0.1, "id": 5},
        ]


def test_a_reset_in_the_middle_of_a_task_hurts_nobody(worker):
    for _ in range(20):
        peer = worker.peer()
        peer.send(b'{"function":"nap","args":[0.05]}\n' * 3)
        peer.reset()
    with worker.peer() as peer:
        assert peer.bare("nap", 0.1) == 0.1


def test_bare_tasks_of_one_connection_are_answered_in_order(worker):
    with worker.peer() as peer:
        naps = [0.1, 0.0, 0.05, 0.0, 0.01]
        for nap in naps:
            peer.send(json.dumps({"function": "nap", "args": [nap]}).encode() + b"\n")
        peer.send(b"broken\n")
        assert [peer.json() for _ in naps] == naps
        assert peer.json()["error"]["code"] == -32700


def test_json_rpc_calls_of_one_connection_run_beside_each_other(worker):
    with worker.peer() as peer:
        start = time.monotonic()
        for id in range(20):
            params = [0.3 - id / 100]
            call = {"jsonrpc": "2.0", "method": "nap", "params": params, "id": id}
            peer.send(json.dumps(call).encode() + b"\n")
        assert [peer.json()["id"] for _ in range(20)] == list(reversed(range(20)))
        assert time.monotonic() - start < 2


def test_thousands_of_small_frames_in_one_packet(worker):
    with worker.peer() as peer:
        many = 5000
        peer.send(b"".join(b'{"function":"echo","args":[%d]}\n' % n for n in range(many)))
        assert [peer.json() for _ in range(many)] == list(range(many))


def test_the_loose_form_is_answered_without_the_version(worker):
    with worker.peer() as peer:
        reply = peer.ask({"method": "add", "params": [1], "id": "x"})
        assert reply == {"result": 2, "id": "x"}


def test_time_limits_are_answered_in_time(worker):
    with worker.peer() as peer:
        start = time.monotonic()
        assert peer.ask({"function": "nap", "args": [9], "timeout": 0.2})["error"]["code"] == -32001
        params = {"function": "nap", "args": [9], "options": {"timeout": 0.2}}
        assert peer.rpc("gtask.call", params)["error"]["code"] == -32001
        assert 0.4 <= time.monotonic() - start < 3


def test_a_running_call_can_be_cancelled_and_an_unknown_one_not(worker):
    with worker.peer() as peer:
        call = {"jsonrpc": "2.0", "method": "nap", "params": [30], "id": "slow"}
        peer.send(json.dumps(call).encode() + b"\n")
        assert peer.rpc("gtask.cancel", {"id": "other"}, 2)["result"] is False
        peer.send(b'{"jsonrpc":"2.0","method":"gtask.cancel","params":{"id":"slow"},"id":3}\n')
        replies = {reply["id"]: reply for reply in (peer.json(), peer.json())}
        assert replies["slow"]["error"]["code"] == -32002
        assert replies[3]["result"] is True


def test_builtins_answer_in_both_forms(worker):
    with worker.peer() as peer:
        assert peer.bare("gtask.ping") == "pong"
        assert peer.rpc("gtask.ping", [])["result"] == "pong"
        assert peer.bare("gtask.health")["status"] == "ready"
        assert "echo" in peer.rpc("gtask.functions", [])["result"]


def test_the_workers_are_alive_after_all(worker):
    assert all(is_alive(pid) for pid in worker.pids())
