"""Starts and reloads, as histories on a fake clock: no file is read and no process is started."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gtask.master.actions import (
    Abort,
    Action,
    Begin,
    Complain,
    Complete,
    Dismiss,
    GoBack,
    Halt,
    Reply,
    Say,
    TakeOver,
    Withdraw,
)
from gtask.master.change import Change, State

ENDED = "the process that loads the code has ended: exit 1"
LIMIT = 1e6  # seconds; longer than any of these histories
FAILED = "reload failed, the previous code goes on"


class Caller:
    """A client of the control socket, that counts its answers."""

    def __init__(self) -> None:
        self.answers = 0

    def reply(self, **answer: object) -> None:
        self.answers += 1


class World:
    """A master that does what it is asked for, as far as a change can tell.

    Attributes:
        broken: what is wrong with the settings, if anything.
        done: all actions, in their order.
    """

    def __init__(self) -> None:
        self.now = 100.0
        self.change = Change()
        self.newest = 1
        self.broken: list[str] = []
        self.done: list[Action] = []
        self.change.begun(1, self.now, LIMIT)
        self.standing = 0

    def do(self, actions: Iterable[Action]) -> list[Action]:
        """Carry them out, with what follows; returns all that was done."""
        before = len(self.done)
        for action in actions:
            self.done.append(action)
            if isinstance(action, Begin) and self.broken:
                self.do(self.change.not_begun(self.broken, self.now))
            elif isinstance(action, Begin):
                self.newest += 1
                self.change.begun(self.newest, self.now, LIMIT)
            elif isinstance(action, Reply):
                action.client.reply(**action.answer)
        return self.done[before:]

    def want(self, *clients: Caller) -> list[Action]:
        return self.do(self.change.wanted(*clients, now=self.now, standing=self.standing))

    def load(self, generation: int = 0) -> list[Action]:
        return self.do(self.change.loaded(generation or self.newest))

    def fail(self, *problems: str, code: int = 78, generation: int = 0) -> list[Action]:
        generation = generation or self.newest
        return self.do(self.change.failed(generation, list(problems), code, self.now))

    def lose_mold(self, generation: int = 0) -> list[Action]:
        return self.do(self.change.mold_ended(generation or self.newest, "exit 1", self.now))

    def abandon(self, generation: int, present: int, reason: str) -> list[Action]:
        return self.do(self.change.abandoned(generation, present, reason, self.now))

    def progress(self, up: bool = True, over: bool = True, accepting: bool = False) -> list[Action]:
        return self.do(
            self.change.progressed(
                self.now, is_up=up, has_taken_over=over, is_drainer_accepting=accepting
            )
        )

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.do(self.change.tick(self.now, self.standing))

    def reload(self, *clients: Caller) -> list[Action]:
        """From the wish to the end, and nothing goes wrong."""
        return [*self.want(*clients), *self.load(), *self.progress()]


@pytest.fixture
def running() -> World:
    """A world that has started."""
    world = World()
    world.load()
    world.progress()
    world.done.clear()
    return world


def failed(client: Caller, *problems: str) -> Reply:
    return Reply(client, {"ok": False, "message": FAILED, "problems": list(problems)})


# -- the start ------------------------------------------------------------------------------------


def test_a_start():
    world = World()
    assert world.change.state is State.LOADING
    assert world.load() == [TakeOver(1)]
    assert world.progress(up=False, over=False) == []
    assert world.progress(up=True, over=False) == [Complete(1)]
    assert world.change.state is State.IDLE
    assert world.change.has_started
    assert world.change.present == 1
    assert world.change.wake_at(world.now) == math.inf


def test_a_start_whose_code_does_not_load_ends_the_program_with_its_exit_code():
    world = World()
    assert world.fail("no module x", "no module y", code=78) == [
        Dismiss(1),
        Halt("no module x\nno module y", 78),
    ]


def test_a_start_whose_mold_dies_while_it_loads_ends_the_program():
    assert World().lose_mold() == [Dismiss(1), Halt(ENDED, 1)]


def test_a_start_whose_mold_dies_later_is_tried_again():
    world = World()
    world.load()
    world.lose_mold()
    assert not world.change.is_under_way
    assert world.wait(0) == [Begin()]
    assert world.load() == [TakeOver(2)]
    assert not world.change.has_started
    assert world.progress(up=True, over=False) == [Complete(2)]


# -- a reload -------------------------------------------------------------------------------------


def test_a_reload_is_complete_when_all_others_drain_and_have_closed(running: World):
    caller = Caller()
    assert running.want(caller) == [Begin()]
    assert running.load() == [TakeOver(2)]
    assert running.progress(up=True, over=False) == []
    assert running.progress(accepting=True) == []
    assert running.change.state is State.CLOSING
    assert running.change.wake_at(running.now) == pytest.approx(running.now + 0.01)
    assert caller.answers == 0
    assert running.progress() == [
        Complete(2),
        Reply(caller, {"ok": True, "message": "reloaded, generation 2"}),
    ]


def test_a_stuck_worker_does_not_hold_it_up_for_more_than_half_a_second(running: World):
    running.want()
    running.load()
    running.progress(accepting=True)
    running.wait(0.4)
    assert running.progress(accepting=True) == []
    running.wait(0.11)
    assert running.progress(accepting=True) == [Complete(2)]


def test_a_worker_that_dies_while_others_close_is_waited_for(running: World):
    running.want()
    running.load()
    running.progress(accepting=True)
    running.wait(1)
    assert running.progress(up=False, over=False) == []
    assert running.progress() == [Complete(2)]


def test_settings_that_are_wrong(running: World):
    caller, running.broken = Caller(), ["a is wrong", "b is wrong"]
    assert running.want(caller) == [
        Begin(),
        GoBack(1),
        Complain(("a is wrong", "b is wrong")),
        failed(caller, "a is wrong", "b is wrong"),
    ]
    assert not running.change.is_under_way
    running.broken = []
    assert Complete(2) in running.reload()


def test_code_that_does_not_load(running: World):
    caller = Caller()
    running.want(caller)
    assert running.fail("no module x") == [
        Dismiss(2),
        GoBack(1),
        Complain(("no module x",)),
        failed(caller, "no module x"),
    ]
    assert running.change.present == 1
    assert running.lose_mold(2) == [], "we have ended it"
    assert running.wait(100) == []


def test_a_mold_that_dies_while_it_loads(running: World):
    caller = Caller()
    running.want(caller)
    answers = [Dismiss(2), GoBack(1), Complain((ENDED,)), failed(caller, ENDED)]
    assert running.lose_mold() == answers
    assert running.wait(100) == [], "the present mold lives"


def test_workers_that_cannot_boot(running: World):
    caller = Caller()
    running.want(caller)
    running.load()
    assert running.abandon(2, 1, "T cannot start: exit 3") == [
        Dismiss(2),
        GoBack(1),
        Complain(("T cannot start: exit 3",)),
        failed(caller, "T cannot start: exit 3"),
    ]
    assert running.change.present == 1
    assert running.lose_mold(2) == []


def test_a_mold_that_dies_while_its_workers_boot(running: World):
    """The roster goes back to the generation before, and says so after the death."""
    caller = Caller()
    running.want(caller)
    running.load()
    assert running.lose_mold() == [
        Say(f"{ENDED}; starting another", is_trouble=True),
        Complain((ENDED,)),
        failed(caller, ENDED),
    ]
    assert running.abandon(2, 1, "the process ... has died") == [Dismiss(2)]
    assert running.change.present == 1
    assert running.wait(0) == [Begin()]
    assert running.load() == [TakeOver(3)]
    assert running.progress() == [Complete(3)]


# -- one more, meanwhile --------------------------------------------------------------------------


def test_reloads_asked_for_meanwhile_are_one_more_afterwards(running: World):
    first, second, third = Caller(), Caller(), Caller()
    running.want(first)
    running.load()
    assert running.want(second) == running.want(third) == running.want() == []
    assert [type(each) for each in running.progress()] == [Complete, Reply, Begin]
    assert (first.answers, second.answers, third.answers) == (1, 0, 0)
    running.load()
    assert running.progress() == [
        Complete(3),
        Reply(second, {"ok": True, "message": "reloaded, generation 3"}),
        Reply(third, {"ok": True, "message": "reloaded, generation 3"}),
    ]


@pytest.mark.parametrize("has_loaded", [False, True])
def test_one_more_after_one_that_fails(running: World, has_loaded: bool):
    first, second = Caller(), Caller()
    running.want(first)
    if has_loaded:
        running.load()
    running.want(second)
    done = running.abandon(2, 1, "no") if has_loaded else running.fail("no")
    assert done == [Dismiss(2), GoBack(1), Complain(("no",)), failed(first, "no"), Begin()]
    running.load()
    running.progress()
    assert second.answers == 1


def test_one_that_was_asked_for_during_the_start(running: World):
    world = World()
    world.want()
    world.load()
    assert world.progress() == [Complete(1), Begin()]


def test_who_waited_when_a_mold_died_is_answered_by_the_retry(running: World):
    first, second = Caller(), Caller()
    running.want(first)
    running.load()
    running.want(second)
    running.lose_mold()
    assert (first.answers, second.answers) == (1, 0)
    assert running.wait(0) == [Begin()]
    running.load()
    running.progress()
    assert (first.answers, second.answers) == (1, 1)
    assert running.change.state is State.IDLE


# -- a newer one ----------------------------------------------------------------------------------


REPLACED = Say("a newer reload replaces the one that has not finished")


def reloaded(client: Caller, generation: int, *, is_newer: bool = False) -> Reply:
    message = f"reloaded, generation {generation}"
    if is_newer:
        message += "; it has replaced the one that you asked for"
    return Reply(client, {"ok": True, "message": message})


def test_a_newer_reload_replaces_one_that_loads(running: World):
    first, second = Caller(), Caller()
    running.want(first)
    running.wait(1.5)
    assert running.want(second) == [REPLACED, Dismiss(2), GoBack(1), Begin()]
    assert running.lose_mold(2) == [], "we have ended it"
    running.load(3)
    assert running.progress() == [
        Complete(3),
        reloaded(second, 3),
        reloaded(first, 3, is_newer=True),
    ]


def test_a_reload_has_a_second_before_a_newer_one_replaces_it(running: World):
    first, second = Caller(), Caller()
    running.want(first)
    running.wait(0.3)
    assert running.want(second) == running.wait(0.6) == []
    assert running.change.wake_at(running.now) == pytest.approx(running.now + 0.1)
    assert running.wait(0.11) == [REPLACED, Dismiss(2), GoBack(1), Begin()]
    assert running.wait(1.1) == [], "nothing newer is wanted"


def test_one_whose_workers_boot_is_withdrawn_if_it_has_not_served_yet(running: World):
    caller = Caller()
    running.want()
    running.load()
    running.wait(1.5)
    running.standing = 1
    assert running.want(caller) == [REPLACED, Withdraw(2), Dismiss(2), GoBack(1), Begin()]
    assert running.change.present == 1
    assert running.fail("no", generation=3) == [
        Dismiss(3),
        GoBack(1),
        Complain(("no",)),
        failed(caller, "no"),
    ]


def test_one_that_serves_already_is_the_present_one_for_a_newer(running: World):
    running.want()
    running.load()
    running.wait(1.5)
    running.standing = 2
    assert running.want() == [REPLACED, Begin()]
    assert running.change.present == 2
    assert running.fail("no") == [Dismiss(3), GoBack(2), Complain(("no",))]


def test_all_who_were_replaced_are_told_why_the_newest_failed(running: World):
    callers = [Caller() for _ in range(3)]
    for caller in callers:
        running.want(caller)
        running.wait(1.5)
    running.fail("no")
    assert [caller.answers for caller in callers] == [1, 1, 1]


def test_a_start_is_not_replaced():
    world = World()
    world.wait(100)
    assert world.want() == []
    world.load()
    assert world.want() == world.wait(100) == []
    assert world.progress() == [Complete(1), Begin()]


def test_a_lost_mold_does_not_replace_the_reload_that_is_under_way(running: World):
    running.want()
    running.lose_mold(1)
    assert running.wait(0) == running.wait(100) == []


# -- one that hangs -------------------------------------------------------------------------------


def hang(seconds: float) -> World:
    world = World()
    world.change = Change()
    world.change.begun(1, world.now, seconds)
    return world


LATE = "the code is not ready within boot_timeout (60 s), the log has its stacks"


def test_a_mold_that_says_nothing_is_ended_after_its_stacks_were_written():
    world = hang(60)
    assert world.wait(60.9) == [], "it should say so itself"
    assert world.change.wake_at(world.now) == pytest.approx(world.now + 0.1)
    said, abort = world.wait(0.2)
    assert isinstance(said, Say)
    assert "boot_timeout" in said.text
    assert abort == Abort(1)
    assert world.wait(0.9) == []
    assert world.wait(0.2) == [Dismiss(1)]
    assert world.wait(100) == []
    assert world.lose_mold(1) == [Dismiss(1), Halt(LATE, 1)]


def test_what_has_loaded_is_not_late():
    world = hang(60)
    world.load(1)
    assert world.change.wake_at(world.now) == math.inf
    assert world.wait(100) == []


def test_without_a_limit_it_may_load_for_ever():
    assert hang(0).wait(1e6) == []


# -- a lost mold ----------------------------------------------------------------------------------


def test_a_lost_mold_is_replaced_by_a_reload_that_nobody_asked_for(running: World):
    assert running.lose_mold() == [Say(f"{ENDED}; starting another", is_trouble=True)]
    assert running.change.wake_at(running.now) == running.now
    assert running.wait(0) == [Begin()]
    assert running.load() == [TakeOver(2)]


def test_the_retries_become_rarer_until_one_succeeds(running: World):
    running.lose_mold()
    waits = []
    for _ in range(7):
        waits.append(running.change.wake_at(running.now) - running.now)
        assert running.wait(waits[-1]) == [Begin()]
        running.fail("no database")
    assert waits == [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0]
    running.wait(30)
    running.load()
    running.progress()
    running.lose_mold()
    assert running.change.wake_at(running.now) == running.now


def test_settings_that_are_wrong_do_not_end_the_retries(running: World):
    """Otherwise no dead worker would be replaced any more, even when they are right again."""
    running.broken = ["a is wrong"]
    running.lose_mold()
    running.wait(0)
    assert running.change.wake_at(running.now) == running.now + 1
    running.broken = []
    assert running.wait(1) == [Begin()]


def test_a_mold_that_is_lost_during_a_reload_has_one_more_reload_follow(running: World):
    running.want()
    running.lose_mold(1)
    assert running.wait(0) == [], "one is under way"
    running.load()
    assert running.progress() == [Complete(2), Begin()]


def test_a_mold_that_is_lost_while_the_next_fails_is_replaced(running: World):
    running.want()
    running.load()
    running.lose_mold(1)
    assert running.wait(100) == [], "the new generation is to take over"
    running.abandon(2, 1, "no")
    assert running.wait(0) == [Begin()]


def test_molds_that_have_been_replaced_may_end(running: World):
    running.reload()
    assert running.lose_mold(1) == []


# -- what comes too late --------------------------------------------------------------------------


def test_what_a_dismissed_mold_says_changes_nothing(running: World):
    running.want()
    running.fail("no")
    assert running.load(2) == []
    assert running.fail("no", generation=2) == [Dismiss(2)]
    running.want()
    assert running.load(2) == []
    assert running.change.state is State.LOADING


def test_a_stop_answers_all_who_wait_and_nothing_begins_any_more(running: World):
    first, second, third = Caller(), Caller(), Caller()
    running.want(first)
    running.load()
    running.want(second)
    refusal = {"ok": False, "message": "the service is stopping"}
    assert running.do(running.change.stop()) == [Reply(first, refusal), Reply(second, refusal)]
    assert running.do(running.change.stop()) == []
    assert running.want() == []
    assert running.want(third) == [Reply(third, refusal)]
    assert running.load() == running.progress() == running.lose_mold() == running.wait(100) == []
    assert running.abandon(2, 1, "no") == [Dismiss(2)]
    assert running.change.wake_at(running.now) == math.inf


class Life(RuleBasedStateMachine):
    """Whatever happens in whatever order, everybody is answered once and no mold is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.callers: list[Caller] = []
        self.living = {1}
        self.present = self.previous = 0

    def see(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Begin):
                self.living.add(self.world.newest)
            elif isinstance(action, TakeOver):
                self.previous, self.present = self.present, action.generation
            elif isinstance(action, Halt):
                self.world.do(self.world.change.stop())
            elif isinstance(action, Withdraw):
                self.present, self.previous = self.previous, 0
            elif isinstance(action, GoBack):
                assert action.generation == self.world.change.present

    @rule(is_broken=st.booleans())
    def want(self, is_broken: bool) -> None:
        self.world.broken = ["wrong"] if is_broken else []
        self.callers.append(Caller())
        self.stand()
        self.see(self.world.want(self.callers[-1]))

    def stand(self) -> None:
        """As the roster tells, as long as no service has a new worker."""
        can_go_back = self.previous in self.living
        self.world.standing = self.previous if can_go_back else self.present

    @rule()
    def load(self) -> None:
        if self.world.newest in self.living:
            self.see(self.world.load())

    @rule()
    def fail(self) -> None:
        if self.world.change.state is State.LOADING:
            self.see(self.world.fail("no"))

    @rule(index=st.integers(0, 10))
    def die(self, index: int) -> None:
        if self.living:
            generation = sorted(self.living)[index % len(self.living)]
            self.living.remove(generation)
            self.see(self.world.lose_mold(generation))

    @precondition(lambda self: self.world.change.awaits_workers)
    @rule()
    def abandon(self) -> None:
        if self.previous in self.living:
            back, self.previous = self.previous, 0
            self.see(self.world.abandon(self.world.change.present, back, "cannot boot"))
            self.present = back

    @rule(up=st.booleans(), over=st.booleans(), accepting=st.booleans())
    def progress(self, up: bool, over: bool, accepting: bool) -> None:
        self.see(self.world.progress(up or over, over, accepting))

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.stand()
        self.see(self.world.wait(seconds))

    @rule()
    def stop(self) -> None:
        self.world.do(self.world.change.stop())

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert all(caller.answers <= 1 for caller in self.callers)

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        change = self.world.change
        waits = any(caller.answers == 0 for caller in self.callers)
        if waits and not change.is_under_way:
            assert change.state is State.IDLE
            assert change.wake_at(self.world.now) < math.inf

    @invariant()
    def a_lost_mold_is_on_its_way(self) -> None:
        change = self.world.change
        if change.state is State.IDLE and change.present not in self.living:
            assert change.wake_at(self.world.now) < math.inf


TestLife = Life.TestCase
TestLife.settings = hypothesis_settings(max_examples=60, stateful_step_count=50, deadline=None)
