"""The two tables of settings, and the rules that hold among their values."""

from __future__ import annotations

import ipaddress
from dataclasses import FrozenInstanceError, fields

import pytest

from gtask.address import Address
from gtask.config import ServiceSettings, Settings, make_service, make_settings, parse_settings
from gtask.errors import ConfigError

from .texts import SERVICE, problems_of, service


def test_one_mistake_is_told_once():
    told = problems_of(service("certfile = /no/such\nkeyfile = setup.cfg"))
    assert told == ["f.ini [worker:A] certfile: there is no file /no/such"]
    taken = "".join(service("").replace(":A", f":{name}") for name in "ABC")
    assert len(problems_of(taken)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (service("") + service("").replace(":A", ": A"), "[worker:A] name: is taken"),
        (service("") + service("").replace(":A", ":B"), "listen: text://127.0.0.1:1 is taken by A"),
        (service("") + service("").replace(":A", ":B").replace("127.0.0.1", "0.0.0.0"), "is taken by A"),
        ("[worker:A]\nlisten = text://127.0.0.1:1\n", "tasks: is missing"),
        ("[worker:A]\nlisten = text://127.0.0.1:1\ntasks = ,\n", "tasks: is missing"),
        ("[worker:A]\nlisten = websocket://127.0.0.1:1\n", "handler: is missing"),
        ("[worker:A]\nlisten = websocket://h:1\nhandler = h\ntasks = t\n", "cannot be served by websocket"),
        (SERVICE.replace("listen", "listn"), "listen: is missing"),
        (service("Count = 3"), "Count: unknown key, did you mean count?"),
        (service("keyfile = setup.cfg"), "keyfile: needs certfile"),
        (service("cafile = setup.cfg"), "cafile: needs certfile"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, words):
    assert any(words in problem for problem in problems_of(text)), problems_of(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text://127.0.0.1:0", "text://127.0.0.1:0"),
        ("text://127.0.0.1:1", "text://127.0.0.1:2"),
        ("text://127.0.0.1:1", "text://[::1]:1"),
        ("text://0.0.0.0:1", "text://[::1]:1"),
        ("text://localhost:1", "text://127.0.0.2:1"),
        ("text+unix:///a", "text+unix:///b"),
        ("text+unix:///a", "text://127.0.0.1:0"),
    ],
)
def test_places_that_go_together(one, other):
    made = make_settings([make_service("A", one), make_service("B", other)])
    assert len(made.services) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text://127.0.0.1:1", "websocket://127.0.0.1:1"),
        ("text://[::]:1", "text://127.0.0.1:1"),
        ("text://[::]:1", "text://0.0.0.0:1"),
        ("text://[0:0::0]:1", "text://[::1]:1"),
        ("text://0.0.0.0:1", "text://localhost:1"),
        ("text://LOCALHOST:1", "text://[::1]:1"),
        ("text://a.example:1", "text://0.0.0.0:1"),
        ("text+unix:///a/b", "text+unix:///a/./b"),
    ],
)
def test_places_that_do_not_go_together(one, other):
    for first, second in ((one, other), (other, one)):
        with pytest.raises(ConfigError, match="is taken by A"):
            make_settings([make_service("A", first), make_service("B", second)])


# -- the same rules for programs ------------------------------------------------------------------


def test_a_programs_options_have_the_same_rules():
    made = make_service(
        "A", "text://h:1", count=2, tasks=["a"], task_timeout=1, allow=["::1"], socket_mode=0o600
    )
    assert made == ServiceSettings(
        name="A",
        listen=Address("text", "h", 1),
        count=2,
        tasks=("a",),
        task_timeout=1.0,
        allow=(ipaddress.IPv6Network("::1"),),
        socket_mode=0o600,
    )
    with pytest.raises(TypeError, match="worker A: cout: unknown key, did you mean count"):
        make_service("A", "text://h:1", cout=2)


def test_an_empty_option_is_the_default():
    assert make_service("A", "text://h:1", count=" ", user="", certfile="") == make_service(
        "A", "text://h:1"
    )


def test_options_survive_being_read_again():
    made = make_service("A", "text://h:1", allow="10.0.0.0/8", count="2x", origins=("*",))
    given = {one.name: getattr(made, one.name) for one in fields(made)}
    assert make_service(**given) == made


def test_all_problems_of_a_program_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        make_service("A", "h:1", count=0, keyfile="setup.cfg")
    assert [line.split(": ")[1] for line in caught.value.problems] == ["listen", "count", "keyfile"]


def test_the_tree_of_a_program():
    one, other = make_service("A", "text://h:1"), make_service("A", "text://h:2")
    made = make_settings([one], stop_timeout="5", log_format="JSON")
    assert made == Settings(services=(one,), stop_timeout=5.0, log_format="json")
    with pytest.raises(ConfigError) as caught:
        make_settings([one, other], stop_timeout=-1)
    assert caught.value.problems == [
        "run_all: stop_timeout: expected a number of seconds, 0 or more, not -1",
        "worker A: name: is taken by another service",
    ]
    with pytest.raises(ConfigError, match="no worker"):
        make_settings([])
    with pytest.raises(TypeError, match="did you mean stop_timeout"):
        make_settings([one], stop_timeut=1)


@pytest.mark.parametrize("kind", [Settings, ServiceSettings])
def test_settings_are_frozen_and_by_name(kind):
    with pytest.raises(TypeError):
        kind("a")
    given = {"name": "A", "listen": Address("text")} if kind is ServiceSettings else {}
    with pytest.raises(FrozenInstanceError):
        kind(**given).file = "x"


def test_tasks_and_a_handler_for_the_processes():
    (one,) = parse_settings(service("handler = h")).services
    assert (one.tasks, one.handler) == (("t",), "h")


@pytest.mark.parametrize("name", ["a\nb", "a\0b", "\x1b[2J"])
def test_a_name_is_one_line_of_text(name):
    with pytest.raises(ConfigError, match="name: expected one line of text"):
        make_service(name, "text://h:1")
