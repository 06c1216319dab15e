"""Who is dealt what, with a real store and workers that are played by the test."""

from __future__ import annotations

import os

import pytest

from gtask.queue import operations as ops
from gtask.queue.dealer import LEASE_SECONDS, Dealer
from gtask.queue.owners import own_identity
from gtask.queue.records import NewTask
from gtask.queue.sqlite.store import SqliteStore


class Loop:
    """Callbacks at once; timers and watchers when the test says so."""

    def __init__(self) -> None:
        self.timers = []

    def run_callback(self, function, *args):
        function(*args)

    def timer(self, seconds):
        return Watcher(self.timers)

    def io(self, fd, events):
        return Watcher([])


class Watcher:
    def __init__(self, started) -> None:
        self.started = started

    def start(self, function, *args):
        self.started.append((function, args))

    def stop(self):
        pass

    def close(self):
        pass


class Line:
    def __init__(self) -> None:
        self.context = None
        self.sent = []

    def send(self, line: bytes) -> None:
        self.sent.append(line)

    def read_all(self) -> None:
        pass

    def close(self) -> None:
        pass


class Bench:
    """A dealer whose operations are applied when the test says so."""

    def __init__(self, path: str) -> None:
        self.store = SqliteStore(path)
        self.asked = []
        self.loop = Loop()
        self.dealer = Dealer(self.loop, self)
        self.dealer.begin()
        self.work()

    def submit(self, operation, then):
        self.asked.append((operation, then))

    def work(self) -> None:
        """Apply what has been asked for, and what that leads to."""
        while self.asked:
            batch, self.asked = self.asked, []
            applied = self.store.apply([operation for operation, _ in batch])
            for (_, then), outcome in zip(batch, applied.outcomes, strict=True):
                then(outcome)
            has_news = any(type(operation) is not ops.Claim for operation, _ in batch)
            self.dealer.applied(applied.ready, has_news)

    def put(self, *ids: str) -> None:
        for id in ids:
            self.submit(ops.Put("default", NewTask(id, "work", b"[]")), lambda _: None)
        self.work()

    def join(self, line: Line, number: int, capacity: int, holds=(), **more) -> list:
        boot_id, namespace, pid, start = vars(own_identity()).values()
        answers = []
        params = {
            "identity": [boot_id, namespace, pid, start]
            if number == 0
            else [boot_id, f"other{number}", 1, 1],
            "queue": "default",
            "capacity": capacity,
            "functions": {"work": [0, 5, 600, 300, 60]},
            "holds": list(holds),
            **more,
        }
        self.dealer.join(line, params, answers.append)
        self.work()
        return answers

    def held(self, line: Line) -> list[str]:
        return [run.id for run in line.context.runs.values()]

    def state(self, id: str) -> str:
        return self.store.apply([ops.Look("default", id)]).outcomes[0]["state"]

    def end(self, line: Line, *fences: int) -> None:
        ends = [[line.context.runs[f].seq, f, "returned", "1", None] for f in fences]
        self.dealer.ended(line.context, ends)
        self.work()


@pytest.fixture
def bench(tmp_path):
    made = Bench(str(tmp_path / "file.db"))
    yield made
    made.store.close()


def test_nothing_is_prefetched(bench):
    line = Line()
    bench.join(line, 1, 2)
    bench.put("a", "b", "c")
    assert bench.held(line) == ["a", "b"]
    assert bench.state("c") == "ready"
    bench.end(line, min(line.context.runs))
    assert bench.held(line) == ["b", "c"]
    assert b'"store.ended"' in line.sent[-2] or b'"store.ended"' in line.sent[-1]


def test_tasks_are_shared_among_those_that_have_places(bench):
    bench.put(*(f"t{number:02}" for number in range(12)))
    lines = [Line(), Line(), Line()]
    bench.store.apply([ops.Pause("default", True)])
    for number, line in enumerate(lines, 1):
        bench.join(line, number, 20)
    bench.submit(ops.Pause("default", False), lambda _: None)
    bench.work()
    assert [len(bench.held(line)) for line in lines] == [4, 4, 4]


def test_at_most_ten_are_dealt_in_a_message(bench):
    line = Line()
    bench.join(line, 1, 100)
    bench.put(*(f"t{number:02}" for number in range(25)))
    assert [message.count(b'"work"') for message in line.sent if b"deal" in message] == [10, 10, 5]


def test_a_process_that_drains_is_dealt_nothing(bench):
    line = Line()
    bench.join(line, 1, 5)
    bench.dealer.drains(line.context, "interrupted")
    bench.put("a")
    assert bench.state("a") == "ready"


def test_what_a_process_does_not_hold_any_more_is_freed_and_what_it_must_not_hold_is_told(bench):
    line = Line()
    bench.join(line, 1, 2)
    bench.put("a", "b")
    first, _ = sorted(line.context.runs)
    again = Line()
    (answer,) = bench.join(again, 1, 2, holds=[first, 9999])
    assert answer["stop"] == [9999]
    assert line.context is None
    assert sorted(bench.held(again)) == ["a", "b"]  # the second was freed, and dealt anew
    record = bench.store.apply([ops.Look("default", "b")]).outcomes[0]
    assert (record["attempt"], record["deliveries"]) == (1, 2)


def test_a_process_that_cannot_be_seen_has_a_lease(bench):
    line = Line()
    bench.join(line, 1, 1)
    bench.put("a")
    owner = line.context
    bench.dealer.disconnected(owner)
    bench.dealer.look_after(owner.lease_until - 0.1)
    bench.work()
    assert bench.state("a") == "running"
    bench.dealer.look_after(owner.lease_until + LEASE_SECONDS)
    bench.work()
    assert bench.state("a") == "ready"


def test_one_that_can_be_seen_keeps_its_tasks_without_a_connection(bench):
    line = Line()
    bench.join(line, 0, 1)
    bench.put("a")
    owner = line.context
    bench.dealer.disconnected(owner)
    assert owner.lease_until is None
    assert owner.is_watched
    owner.close()


def test_a_new_start_frees_what_the_provably_dead_held(tmp_path):
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    first = Bench(str(tmp_path / "file.db"))
    line = Line()
    _boot_id, namespace, _, start = vars(own_identity()).values()
    first.join(line, 1, 1)
    first.put("a")
    first.store._connection.execute(
        "UPDATE owner SET pid_namespace = ?, pid = ?, start_time = ?", (namespace, pid, start)
    )
    first.store.close()
    second = Bench(str(tmp_path / "file.db"))
    assert second.state("a") == "ready"
    second.store.close()
