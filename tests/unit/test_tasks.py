"""`@task`, finding tasks, binding arguments."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.binding import TaskFunction
from gtask.errors import BadArguments, ConfigError
from gtask.tasks import current_task, find_tasks, task


def served(function) -> TaskFunction:
    return TaskFunction(function)


def module(name="m", **functions) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(functions)
    return made


def test_a_marked_function_stays_callable():
    @task
    def add(a, b):
        return a + b

    @task(name="mail.send", timeout=5, blocking=True)
    def send(to):
        return to

    assert add(1, 2) == 3
    assert send("x") == "x"


@pytest.mark.parametrize("name", ["", "gtask.x", "rpc.x", 3])
def test_names_that_cannot_be(name):
    with pytest.raises(ValueError, match="cannot be the name"):
        task(name=name)


@pytest.mark.parametrize("timeout", [-1, "5", float("nan"), float("inf")])
def test_timeouts_that_cannot_be(timeout):
    with pytest.raises(ValueError, match="timeout"):
        task(timeout=timeout)


def test_only_plain_functions_can_be_marked():
    async def later():
        pass

    for thing in (later, int, 3):
        with pytest.raises(TypeError):
            task(thing)


def test_only_marked_functions_are_found():
    marked, plain = task(lambda: 1), lambda: 2
    found = find_tasks([module(a=marked, b=plain, os=__import__("os"))])
    assert list(found) == ["<lambda>"]


def test_a_module_without_tasks_and_a_name_taken_twice_are_both_told():
    def first():
        pass

    def second():
        pass

    modules = [
        module("empty"),
        module("one", f=task(name="f")(first)),
        module("two", f=task(name="f")(second)),
    ]
    with pytest.raises(ConfigError) as caught:
        find_tasks(modules)
    assert len(caught.value.problems) == 2
    assert "empty" in caught.value.problems[0]
    assert "'f'" in caught.value.problems[1]


def test_the_same_function_in_two_modules_is_one_task():
    function = task(lambda: 1)
    assert len(find_tasks([module("a", f=function), module("b", g=function)])) == 1


def test_keywords_lose_their_underscore_and_nothing_else_does():
    function = served(lambda from_, to_, class_="x": None)
    assert function.bind({"from": 1, "to_": 2}) == ([1, 2], {})
    assert function.bind({"from": 1, "to_": 2, "class": 3}) == ([1, 2, 3], {})
    others = served(lambda from_, *, to_, **others: None)
    assert others.bind({"from": 1, "to_": 2, "x_": 3}) == ([], {"from_": 1, "to_": 2, "x_": 3})


@pytest.mark.parametrize(
    ("args", "missing", "unexpected"),
    [
        ({}, ["a", "from"], []),
        ({"a": 1}, ["from"], []),
        ({"a": 1, "from": 2, "x": 3}, [], ["x"]),
        ({"a": 1, "from_": 2}, ["from"], ["from_"]),
        ([], ["a", "from"], []),
        ([1], ["from"], []),
        ([1, 2, 3, 4], [], ["argument 4"]),
    ],
)
def test_bad_arguments_are_named(args, missing, unexpected):
    with pytest.raises(BadArguments) as caught:
        served(lambda a, from_, c=0: None).bind(args)
    assert caught.value.data == {"missing": missing, "unexpected": unexpected}
    for name in missing + unexpected:
        assert name in caught.value.message


SHAPES = [
    lambda: locals(),
    lambda a, b: locals(),
    lambda a, b=2: locals(),
    lambda a=1, b=2: locals(),
    lambda a, *, b: locals(),
    lambda a, b, /: locals(),
    lambda a, /, b, *, c=1: locals(),
    lambda a, *more: locals(),
    lambda a, **more: locals(),
    lambda a, /, b=1, *more, c, **others: locals(),
]


@given(
    st.sampled_from(SHAPES),
    st.dictionaries(st.sampled_from("abcd"), st.integers()) | st.lists(st.integers(), max_size=4),
)
def test_what_binds_is_what_python_would_and_what_cannot_be_called_does_not_bind(function, args):
    try:
        wanted = function(*args) if isinstance(args, list) else function(**args)
    except TypeError:
        wanted = None
    try:
        positional, keywords = served(function).bind(args)
        bound = function(*positional, **keywords)
    except BadArguments:
        bound = None
    assert bound == wanted


def test_outside_a_task_progress_goes_nowhere():
    current_task().progress(1, 2, "note")
    assert current_task().id is None
