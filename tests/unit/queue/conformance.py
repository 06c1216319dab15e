"""What every store does, written against the interface; each engine's tests run all of it.

A module that has a fixture `store`, of a `StoreUnderTest`, gets the tests by importing `*` from here.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

import pytest

from gtask.errors import QueueFull, TaskError, UnknownJob
from gtask.queue import operations as ops
from gtask.queue.records import Applied, Dealt, Identity, NewTask, Priority, Terms
from gtask.queue.states import Event, State

Q = "default"
KNOWN = {"work": Terms(), "again": Terms(retries=2, retry_delay_ms=1000)}


class StoreUnderTest(Protocol):
    """A store with few places, whose clock the test has in hand."""

    now: int  # milliseconds

    def apply(self, operations: list[Any]) -> Applied: ...

    def reopen(self) -> None:
        """As after the end of the process that has used it."""


class Bench:
    """Short words for what the tests do."""

    def __init__(self, store: StoreUnderTest) -> None:
        self.store = store
        self.owner = self.join(1)

    def do(self, operation: Any) -> Any:
        (outcome,) = self.store.apply([operation]).outcomes
        if isinstance(outcome, TaskError):
            raise outcome
        return outcome

    def join(self, pid: int) -> int:
        return self.do(ops.Join(Identity("boot", "pid", pid, 7)))

    def put(self, id: str, function: str = "work", **options: Any) -> tuple[str, State, bool]:
        return self.do(ops.Put(Q, NewTask(id, function, b"[1]", **options)))

    def claim(
        self, limit: int = 1, owner: int = 0, known: Any = None, **options: Any
    ) -> list[Dealt]:
        operation = ops.Claim(Q, owner or self.owner, limit, known or KNOWN, **options)
        return self.do(operation)

    def end(
        self, dealt: Dealt, event: Event = Event.RETURNED, outcome: bytes = b"null", **k: Any
    ) -> bool:
        return self.do(ops.End(dealt.seq, dealt.fence, event, outcome, **k))

    def lose(self, event: Event = Event.LOST, owner: int = 0, **options: Any) -> int:
        return self.do(ops.Release(owner or self.owner, event, **options))

    def state(self, id: str) -> str:
        return self.do(ops.Look(Q, id))["state"]

    def look(self, id: str) -> dict[str, Any]:
        return self.do(ops.Look(Q, id))

    def counts(self) -> dict[str, Any]:
        return self.do(ops.Counts())[Q]

    def ids(self, limit: int = 100) -> list[str]:
        return [dealt.id for dealt in self.claim(limit)]


@pytest.fixture
def bench(store: StoreUnderTest):
    made = Bench(store)
    yield made
    assert made.do(ops.Check()) == []


# -- put ------------------------------------------------------------------------------------------


def test_a_task_goes_from_put_to_done(bench):
    assert bench.put("a") == ("a", State.READY, True)
    (dealt,) = bench.claim()
    assert (dealt.id, dealt.function, dealt.args, dealt.attempt) == ("a", "work", b"[1]", 1)
    assert bench.end(dealt, outcome=b'{"x":1}')
    found = bench.do(ops.Result(Q, "a"))
    assert (found.state, found.outcome) == (State.DONE, b'{"x":1}')


def test_what_was_put_is_there_after_a_new_start(bench, store):
    bench.put("a")
    store.reopen()
    assert bench.ids() == ["a"]


def test_a_repeated_id_is_the_same_task(bench):
    bench.put("a")
    assert bench.put("a", "again") == ("a", State.READY, False)
    bench.end(*bench.claim())
    assert bench.put("a") == ("a", State.DONE, False)
    assert bench.counts()["put_total"] == 1


def test_a_key_is_free_again_when_its_task_is_final(bench):
    bench.put("a", key="k")
    assert bench.put("b", key="k") == ("a", State.READY, False)
    (dealt,) = bench.claim()
    assert bench.put("b", key="k") == ("a", State.RUNNING, False)
    bench.end(dealt)
    assert bench.put("b", key="k") == ("b", State.READY, True)


def test_long_arguments_come_back_as_they_were(bench):
    args = json.dumps(["x" * 100_000]).encode()
    bench.do(ops.Put(Q, NewTask("a", "work", args)))
    (dealt,) = bench.claim()
    assert dealt.args == args


def test_a_full_store_refuses_but_finds(bench):
    for number in range(10):
        bench.put(f"t{number}")
    with pytest.raises(QueueFull) as caught:
        bench.put("more")
    assert caught.value.data["limit"] == 10
    assert bench.put("t3") == ("t3", State.READY, False)


def test_one_refusal_in_a_batch_leaves_the_others(bench, store):
    first, second = ops.Put(Q, NewTask("a", "work", b"[]")), ops.Look(Q, "nothing")
    outcomes = store.apply([first, second]).outcomes
    assert outcomes[0] == ("a", State.READY, True)
    assert isinstance(outcomes[1], UnknownJob)


# -- order ----------------------------------------------------------------------------------------


def test_first_put_is_first_claimed(bench):
    for id in "abc":
        bench.put(id)
    assert bench.ids() == ["a", "b", "c"]


def test_of_32_claims_28_are_high_3_normal_and_1_low(bench, store):
    got = []
    for number in range(64):
        for priority in Priority:
            bench.put(f"{number}{priority.name}", priority=priority)
        (dealt,) = bench.claim()
        got.append(dealt.id.lstrip("0123456789"))
        bench.end(dealt)
        for id in [f"{number}{priority.name}" for priority in Priority]:
            if number > 1 and bench.state(id) == "ready":
                bench.do(ops.Cancel(Q, id))
    assert [got[:32].count(name) for name in ("HIGH", "NORMAL", "LOW")] == [28, 3, 1]


def test_delayed_tasks_queue_when_they_are_due(bench, store):
    bench.put("later", delay_ms=1000)
    bench.put("a")
    assert bench.state("later") == "delayed"
    store.now += 1000
    bench.put("b")
    assert bench.ids() == ["a", "later", "b"]


def test_a_claim_takes_no_more_than_asked_for(bench):
    for id in "abc":
        bench.put(id)
    assert [dealt.id for dealt in bench.claim(2)] == ["a", "b"]


def test_a_paused_queue_deals_nothing(bench, store):
    bench.put("a")
    bench.do(ops.Pause(Q, True))
    assert bench.claim() == []
    assert bench.counts()["paused"] is True
    store.reopen()
    assert bench.claim() == []
    bench.do(ops.Pause(Q, False))
    assert bench.ids() == ["a"]


# -- ends -----------------------------------------------------------------------------------------


def test_failures_are_tried_again_as_often_as_retries_allow(bench, store):
    bench.put("a", "again")
    for attempt in (1, 2, 3):
        (dealt,) = bench.claim()
        assert dealt.attempt == attempt
        assert bench.end(dealt, Event.FAILED, b'{"code":1,"message":"m"}', terms=KNOWN["again"])
        store.now += 600_000
    assert bench.look("a")["reason"] == "failed"
    assert bench.state("a") == "dead"
    assert bench.counts()["retried_total"] == 2


def test_a_put_may_say_the_retries(bench):
    bench.put("a", "again", retries=0)
    bench.end(*bench.claim(), Event.FAILED)
    assert bench.state("a") == "dead"


def test_a_task_may_say_when_it_is_tried_again(bench, store):
    bench.put("a", "again")
    bench.end(*bench.claim(), Event.FAILED, after_ms=5000)
    store.now += 4999
    assert bench.ids() == []
    store.now += 1
    assert bench.ids() == ["a"]


@pytest.mark.parametrize("event", [Event.REJECTED, Event.BAD_ARGUMENTS, Event.BAD_RESULT])
def test_what_makes_no_sense_again_is_dead_at_once(bench, event):
    bench.put("a", "again")
    bench.end(*bench.claim(), event)
    assert bench.look("a")["reason"] == event.value


def test_an_end_told_again_gets_the_same_answer_and_changes_nothing(bench):
    bench.put("a")
    (dealt,) = bench.claim()
    assert bench.end(dealt, outcome=b"1")
    assert bench.end(dealt, Event.FAILED, b"2")
    assert bench.do(ops.Result(Q, "a")).outcome == b"1"


def test_an_end_with_an_old_fence_is_refused(bench):
    bench.put("a")
    (first,) = bench.claim()
    bench.lose()
    owner = bench.join(2)
    (second,) = bench.claim(owner=owner)
    assert second.fence > first.fence
    assert not bench.end(first, outcome=b"1")
    assert bench.state("a") == "running"
    assert bench.end(second, outcome=b"2")
    assert not bench.end(first, outcome=b"1")


def test_fences_are_never_given_twice(bench, store):
    fences = set()
    for _ in range(5):
        bench.put("a")
        (dealt,) = bench.claim()
        fences.add(dealt.fence)
        bench.end(dealt)
        bench.do(ops.Purge(Q, "done", 0))
        store.reopen()
    assert len(fences) == 5


# -- losses ---------------------------------------------------------------------------------------


def test_a_lost_task_is_ready_at_its_old_place(bench):
    bench.put("a")
    bench.put("b")
    bench.claim()
    assert bench.lose() == 1
    bench.owner = bench.join(2)
    assert bench.ids() == ["a", "b"]


def test_five_losses_make_it_dead(bench):
    bench.put("a")
    for pid in range(2, 7):
        owner = bench.join(pid)
        assert [dealt.attempt for dealt in bench.claim(owner=owner)] == [pid - 1]
        bench.lose(owner=owner)
    assert bench.look("a")["reason"] == "worker_lost"
    assert bench.counts()["lost_total"] == 5


def test_more_retries_allow_more_losses(bench):
    bench.put("a", retries=7)
    for pid in range(2, 9):
        owner = bench.join(pid)
        bench.claim(owner=owner)
        bench.lose(owner=owner)
        assert bench.state("a") == "ready"
    owner = bench.join(9)
    bench.claim(owner=owner)
    bench.lose(owner=owner)
    assert bench.state("a") == "dead"


def test_an_interruption_costs_no_attempt_but_the_20th_is_the_last(bench):
    bench.put("a")
    for number in range(20):
        assert bench.state("a") == "ready"
        owner = bench.join(number + 2)
        assert [dealt.attempt for dealt in bench.claim(owner=owner)] == [1]
        bench.lose(Event.INTERRUPTED, owner)
    assert bench.look("a")["reason"] == "interrupted"


def test_an_overdue_run_that_is_lost_has_timed_out(bench):
    bench.put("a")
    bench.put("b")
    first, _ = bench.claim(2)
    bench.lose(overdue=frozenset({first.fence}))
    assert bench.look("a")["reason"] == "timed_out"
    assert bench.state("b") == "ready"


def test_what_never_arrived_is_freed_at_no_cost(bench):
    bench.put("a")
    bench.put("b")
    first, _ = bench.claim(2)
    bench.lose(Event.UNDELIVERED, keep=frozenset({first.fence}))
    assert [bench.state(id) for id in "ab"] == ["running", "ready"]
    assert bench.look("b")["attempt"] == 0


def test_a_process_holds_at_most_one_task_that_was_lost_twice(bench):
    for id in "ab":
        bench.put(id)
    for pid in (2, 3):
        owner = bench.join(pid)
        assert len(bench.claim(2, owner)) == 2
        bench.lose(owner=owner)
    bench.put("c")
    dealt = bench.claim(5)
    assert [each.id for each in dealt] == ["a", "c"]
    assert [each.is_suspect for each in dealt] == [True, False]
    assert bench.claim(5, takes_suspect=False) == []
    assert [each.id for each in bench.claim(5)] == ["b"]


def test_the_holdings_are_known_after_a_new_start(bench, store):
    bench.put("a")
    (dealt,) = bench.claim()
    store.reopen()
    identity, runs = bench.do(ops.Holdings())[bench.owner]
    assert identity.pid == 1
    assert runs[dealt.fence][:2] == (dealt.seq, "a")
    assert bench.join(1) == bench.owner
    assert bench.end(dealt)


# -- cancel, expiry, unknown functions ------------------------------------------------------------


def test_a_waiting_task_is_cancelled(bench):
    bench.put("a")
    assert bench.do(ops.Cancel(Q, "a"))[0] == State.CANCELLED
    assert bench.ids() == []


@pytest.mark.parametrize(
    ("event", "state"),
    [(Event.RETURNED, "done"), (Event.FAILED, "cancelled"), (Event.INTERRUPTED, "cancelled")],
)
def test_a_running_task_whose_end_is_asked_for(bench, event, state):
    bench.put("a", "again")
    (dealt,) = bench.claim()
    assert bench.do(ops.Cancel(Q, "a")) == (State.RUNNING, True, bench.owner, dealt.fence)
    assert bench.look("a")["cancel_requested"]
    bench.end(dealt, event)
    assert bench.state("a") == state


def test_nothing_begins_after_its_expiry(bench, store):
    bench.put("a", expires_ms=1000)
    bench.put("b", "again", expires_ms=1000)
    (dealt, _) = bench.claim(2)[::-1][:2]
    bench.end(dealt, Event.FAILED, after_ms=5000)
    store.now += 1000
    bench.do(ops.Upkeep())
    assert [bench.state(id) for id in "ab"] == ["running", "expired"]


def test_a_ready_task_expires(bench, store):
    bench.put("a", expires_ms=1000)
    store.now += 1000
    assert bench.ids() == []
    assert bench.state("a") == "expired"


def test_an_unknown_function_waits_ten_minutes_at_no_cost(bench, store):
    bench.put("a", "new")
    assert bench.ids() == []
    assert bench.state("a") == "delayed"
    began = store.now
    while bench.state("a") in ("delayed", "ready"):
        store.now += 60_000
        assert bench.ids() == []
    assert bench.look("a")["reason"] == "unknown_function"
    assert 600_000 <= store.now - began <= 720_000
    assert bench.look("a")["deliveries"] == 0


def test_a_function_may_become_known(bench, store):
    bench.put("a", "new")
    assert bench.ids() == []
    store.now += 1000
    assert len(bench.claim(known={"new": Terms()})) == 1


# -- records --------------------------------------------------------------------------------------


def test_records_are_forgotten(bench, store):
    bench.put("a", result_ttl_ms=0)
    bench.end(*bench.claim())
    store.now += 59_999
    assert bench.state("a") == "done"
    store.now += 1
    with pytest.raises(UnknownJob):
        bench.state("a")
    assert bench.counts()["done"] == 0
    assert bench.counts()["done_total"] == 1


def test_the_oldest_dead_go_when_they_are_too_many(bench, store):
    for id in "abcd":
        bench.put(id)
        bench.end(*bench.claim(), Event.REJECTED)
        store.now += 1
    store.reopen()
    bench.do(ops.Upkeep())
    assert bench.counts()["dead"] == 3
    with pytest.raises(UnknownJob):
        bench.state("a")


def test_a_dead_task_begins_anew(bench):
    bench.put("a")
    (dealt,) = bench.claim()
    bench.end(dealt, Event.FAILED, b'{"code":1}')
    assert bench.do(ops.Retry(Q, "a"))
    assert not bench.do(ops.Retry(Q, "a"))
    assert not bench.end(dealt)
    (again,) = bench.claim()
    assert (again.attempt, again.fence > dealt.fence) == (1, True)
    bench.end(again)
    assert bench.state("a") == "done"


def test_purge_forgets_what_ended_long_ago(bench, store):
    for id in "ab":
        bench.put(id)
        bench.do(ops.Cancel(Q, id))
        store.now += 1000
    assert bench.do(ops.Purge(Q, "cancelled", 1500)) == 1
    assert bench.counts()["cancelled"] == 1


def test_counts_of_every_state(bench, store):
    bench.put("high", priority=Priority.HIGH)
    bench.put("low", priority=Priority.LOW)
    bench.put("later", delay_ms=5)
    store.now += 3
    counts = bench.counts()
    assert (counts["ready"], counts["ready_high"], counts["ready_low"], counts["delayed"]) == (
        2,
        1,
        1,
        1,
    )
    assert counts["oldest_ready"] == 0.003
    bench.claim()
    assert bench.counts()["running"] == 1


def test_listing_in_pages(bench):
    for id in "abcde":
        bench.put(id, "again" if id == "c" else "work")
    first, cursor = bench.do(ops.Listing(Q, limit=2))
    rest, end = bench.do(ops.Listing(Q, limit=10, after=cursor))
    assert [one["id"] for one in first + rest] == [*"abcde"]
    assert end == 0
    only, _ = bench.do(ops.Listing(Q, function="again"))
    assert [one["id"] for one in only] == ["c"]
    assert bench.do(ops.Listing(Q, state="dead"))[0] == []


def test_queues_of_one_store_are_apart(bench):
    bench.put("a")
    bench.do(ops.Put("other", NewTask("a", "work", b"[]")))
    assert bench.ids() == ["a"]
    assert bench.do(ops.Look("other", "a"))["state"] == "ready"


def test_what_has_become_final_is_told(bench, store):
    bench.put("a")
    (dealt,) = bench.claim()
    applied = store.apply([ops.End(dealt.seq, dealt.fence, Event.RETURNED, b"1")])
    assert applied.finished == [(Q, "a")]
