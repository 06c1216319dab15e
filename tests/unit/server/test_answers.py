"""Answers that JSON or a frame cannot hold: an error to their own caller, and nothing to the others."""

from __future__ import annotations

import json

import gevent
import pytest

from gtask.errors import INTERNAL_ERROR, TASK_FAILED, InternalError

from ...support.served import Served, result, rpc

LIMIT = 2000


def big(size):
    return "x" * size


def big_later(size):
    gevent.sleep(0.001)
    return "x" * size


def fails(size):
    raise ValueError("x" * size)


def raises_ours():
    raise InternalError("of a call of my own")


def odd():
    return {1j}


@pytest.fixture
def peer():
    functions = (big, big_later, fails, raises_ours, odd)
    with Served(*functions, max_frame_bytes=LIMIT) as served:
        yield served.connect()


def too_long(error) -> int:
    assert error["code"] == INTERNAL_ERROR
    return error["data"]["bytes"]


@pytest.mark.parametrize("function", ["big", "big_later"])
def test_the_longest_answer_is_a_whole_frame(peer, function):
    peer.bare(function, LIMIT - 2)
    assert len(peer.line()) == LIMIT - 2
    peer.bare(function, LIMIT - 1)
    assert too_long(peer.line()["error"]) == LIMIT + 1


def test_one_that_is_too_long_is_an_error_for_its_caller_alone(peer):
    calls = [rpc(id, "big_later" if id % 2 else "big", 5000 if id == 3 else 5) for id in range(6)]
    peer.send(*calls)
    replies = {reply["id"]: reply for reply in peer.lines(6)}
    assert too_long(replies.pop(3)["error"]) > 5000
    assert replies == {id: result(id, "x" * 5) for id in (0, 1, 2, 4, 5)}


def test_bare_callers_get_it_in_its_place(peer):
    for size in (1, 5000, 2):
        peer.bare("big", size)
    assert peer.line() == "x"
    assert too_long(peer.line()["error"]) == 5002
    assert peer.line() == "xx"


def test_a_failed_task_counts_as_failed(peer):
    peer.bare("big", 5000)
    peer.line()
    peer.bare("odd")
    assert peer.line()["error"]["code"] == INTERNAL_ERROR


def test_the_words_of_an_exception_are_cut():
    with Served(fails) as served:
        peer = served.connect()
        peer.bare("fails", 3_000_000)
        error = peer.line()["error"]
    assert error["code"] == TASK_FAILED
    assert error["data"]["type"] == "ValueError"
    assert 10_000 < len(error["data"]["message"]) < 10_010


def test_an_exception_whose_words_are_too_long_for_a_frame(peer):
    peer.send(rpc(1, "fails", LIMIT))
    assert too_long(peer.line()["error"]) > LIMIT


@pytest.mark.parametrize("call", ["big", "nothing", "gtask.ping"])
def test_an_id_that_no_answer_can_hold_is_left_out(peer, call):
    line = json.dumps(rpc("é" * 400, call, 1), ensure_ascii=False).encode()
    assert len(line) <= LIMIT
    peer.send(line + b"\n")
    answer = peer.line()
    assert answer["id"] is None
    assert too_long(answer["error"]) > LIMIT


def test_an_error_that_repeats_its_caller_is_no_longer_than_a_frame(peer):
    peer.send(rpc(1, "big") | {"params": {"é" * 300: 1}, "jsonrpc": "2.0"})
    assert too_long(peer.line()["error"]) > LIMIT


@pytest.mark.parametrize("function", ["big", "big_later"])
def test_a_batch_is_no_longer_than_a_frame(peer, function):
    peer.send([rpc(id, function, 300) for id in range(10)])
    line = peer.raw_line()
    assert len(line) <= LIMIT + 1
    replies = {reply["id"]: reply for reply in json.loads(line)}
    assert len(replies) == 10
    good = [id for id, reply in replies.items() if "result" in reply]
    assert len(good) >= 3
    for id in replies.keys() - set(good):
        assert too_long(replies[id]["error"]) > 300


def test_an_error_of_ours_that_a_task_raises_is_its_failure(peer, caplog):
    peer.bare("raises_ours")
    error = peer.line()["error"]
    assert error["code"] == TASK_FAILED
    assert error["data"]["type"] == "InternalError"
    assert "Traceback" in caplog.text


def test_what_is_not_json_is_told_by_name(peer, caplog):
    peer.bare("odd")
    assert peer.line()["error"]["message"] == "not JSON: a set is no JSON value"
    assert "a set is no JSON value" in caplog.text
