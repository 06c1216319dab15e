"""Waiting, callbacks, progress: what a caller sees of one call."""

from __future__ import annotations

from contextvars import ContextVar

import gevent
import pytest

from gtask.client import as_completed, wait
from gtask.errors import TaskCancelled, TaskFailed, TaskTimedOut

from .peers import Outcome, wait_for


def nap(line):
    """Answers after so many seconds, without holding up what comes behind it."""
    if line.method == "nap":
        gevent.spawn_later(line.message["params"][0], line.result, line.message["params"][0])


def fail(line):
    line.error(1, "ValueError: no", {"type": "ValueError", "message": "no"})


def test_get_gives_the_result_to_every_greenlet_that_waits(peer, connect):
    call = connect(peer(nap)).call("nap", [0.02])
    getters = [gevent.spawn(call.get) for _ in range(3)]
    assert [getter.get(timeout=5) for getter in getters] == [0.02] * 3
    assert call.done
    assert call.get() == 0.02


def test_get_raises_the_error_each_time(peer, connect):
    call = connect(peer(fail)).call("f")
    for _ in range(2):
        with pytest.raises(TaskFailed, match="ValueError: no") as caught:
            call.get()
        assert caught.value.data == {"type": "ValueError", "message": "no"}
        assert caught.value.code == 1
    assert call.error is caught.value


def test_get_with_a_timeout_leaves_the_call_alone(peer, connect):
    call = connect(peer(nap)).call("nap", [0.1])
    with pytest.raises(TimeoutError):
        call.get(timeout=0.02)
    assert not call.done
    assert call.get() == 0.1


def test_a_greenlet_killed_while_it_waits_hurts_nobody(peer, connect):
    outcome = Outcome()
    call = connect(peer(nap)).call("nap", [0.05], **outcome.callbacks())
    getter = gevent.spawn(call.get)
    gevent.sleep(0.01)
    getter.kill()
    assert call.get() == 0.05
    wait_for(lambda: outcome.ends)
    assert outcome.results == [0.05]


def test_callbacks_may_block_and_raise(peer, connect, caplog):
    client = connect(peer())
    order = []

    def block(result):
        gevent.sleep(0.05)
        order.append(result)

    def explode(result):
        raise ValueError("boom")

    client.call("f", [1], on_result=block)
    client.call("f", [2], on_result=explode)
    client.call("f", [3], on_result=order.append)
    wait_for(lambda: len(order) == 2)
    assert order == [[3], [1]]
    assert "boom" in caplog.text


def test_no_callback_runs_before_call_has_returned(peer, connect):
    client = connect(peer())
    client.close()
    errors = []
    client.call("f", on_error=errors.append)
    assert not errors
    wait_for(lambda: errors)
    assert isinstance(errors[0], TaskCancelled)


def test_link_tells_before_and_after_the_end(peer, connect):
    call = connect(peer()).call("f", [1])
    linked = []
    call.link(linked.append)
    call.get()
    wait_for(lambda: linked == [call])
    call.link(linked.append)
    wait_for(lambda: linked == [call, call])


def test_callbacks_see_the_context_of_who_gave_them(peer, connect):
    """And none sees what another one has set."""
    variable = ContextVar("who", default="nobody")
    seen = []

    def note(*what):
        seen.append((what[-1], variable.get()))
        variable.set(f"what {what} has set")

    def ask(name):
        variable.set(name)
        call = client.call("f", [name], on_result=note, on_progress=note)
        variable.set(f"{name} later")
        call.link(lambda _: note(f"link {name}"))

    client = connect(peer())
    for name in ("a", "b"):
        gevent.spawn(ask, name).join()
    wait_for(lambda: len(seen) == 4)
    assert sorted(seen, key=str) == [
        ("link a", "a later"),
        ("link b", "b later"),
        (["a"], "a"),
        (["b"], "b"),
    ]
    assert variable.get() == "nobody"


def test_wait_and_as_completed(peer, connect):
    client = connect(peer(nap))
    slow, fast, never = (client.call("nap", [seconds]) for seconds in (0.08, 0.02, 60))
    assert [call.get() for call in as_completed([slow, fast])] == [0.02, 0.08]
    assert wait([slow, never, fast], timeout=0.02) == [slow, fast]
    with pytest.raises(TimeoutError, match="1 of 2"):
        list(as_completed([slow, never], timeout=0.02))
    assert set(gevent.wait([slow, fast], timeout=1)) == {slow, fast}


def test_cancel_ends_the_call_here_and_there(peer, connect):
    server = peer(nap)
    outcome = Outcome()
    call = connect(server).call("nap", [0.05], **outcome.callbacks())
    wait_for(lambda: server.lines)
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(TaskCancelled):
        call.get()
    wait_for(lambda: len(server.lines) == 2)
    assert server.lines[1].message["params"] == {"id": call.id}
    gevent.sleep(0.08)  # the late answer is dropped
    assert outcome.ends == 1


def test_progress_comes_in_order_and_before_the_end(peer, connect):
    def report(line):
        for done in range(5):
            params = {"id": line.id, "done": done, "total": 5, "note": "x"}
            line.send({"jsonrpc": "2.0", "method": "gtask.progress", "params": params})
        line.result("end")

    server = peer(report)
    seen = []

    def slow(done, total, note):
        gevent.sleep(0.005)
        seen.append((done, total, note))
        if done == 2:
            raise ValueError("only this one is lost on me")

    call = connect(server).call("f", [1], on_progress=slow, on_result=seen.append)
    wait_for(lambda: "end" in seen)
    assert seen == [(done, 5, "x") for done in range(5)] + ["end"]
    assert call.get() == "end"
    params = server.lines[0].message["params"]
    assert params == {"function": "f", "args": [1], "options": {"progress": True}}


def test_a_timeout_is_told_to_the_server_and_kept_here(peer, connect):
    server = peer(lambda line: None)
    outcome = Outcome()
    call = connect(server).call("f", timeout=0.05, **outcome.callbacks())
    with pytest.raises(TaskTimedOut, match="f: no result in time"):
        call.get()
    wait_for(lambda: outcome.ends)
    options = server.lines[0].message["params"]["options"]
    assert 0 < options["timeout"] <= 0.05


def test_a_call_cannot_be_waited_for_in_the_hub(peer, connect):
    call = connect(peer(nap)).call("nap", [0.02])
    failures = []

    def in_hub():
        try:
            call.get()
        except RuntimeError as error:
            failures.append(error)

    gevent.get_hub().loop.run_callback(in_hub)
    assert call.get() == 0.02
    assert failures
