"""Configuration: what is read, and that everything wrong is told at once."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from gtask.address import Address
from gtask.config import (
    ServiceSettings,
    Settings,
    load_settings,
    make_service,
    make_settings,
    parse_settings,
)
from gtask.errors import ConfigError

GOOD = """
[gtask]
stop_timeout = 5.5 ; seconds
python_path = {folder}/with space,
    {folder}
; comment
# comment
[worker:Tasks]
listen = Text://127.0.0.1:12345
tasks = one.two,
    three
count = 3
allow = 10.0.0.0/8, 127.0.0.1, ::1
socket_mode = 600
idle_timeout =
[worker:Web]
listen = websocket://[::1]:8080
handler = web
"""

SERVICE = "[worker:A]\nlisten = text://127.0.0.1:1\ntasks = t\n"
ROOT = Path(__file__).resolve().parents[2]


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "f.ini")
    return caught.value.problems


def service(lines: str) -> str:
    return f"{SERVICE}{lines}\n"


def test_a_good_file(tmp_path):
    (tmp_path / "with space").mkdir()
    settings = parse_settings(GOOD.format(folder=tmp_path), "f.ini")
    tasks, web = settings.services
    assert settings.stop_timeout == 5.5
    assert settings.file == "f.ini"
    assert settings.python_path == (f"{tmp_path}/with space", str(tmp_path))
    assert tasks.listen == Address("text", "127.0.0.1", 12345)
    assert tasks.tasks == ("one.two", "three")
    assert (tasks.count, tasks.socket_mode, tasks.idle_timeout) == (3, 0o600, 0.0)
    assert ipaddress.ip_network("10.0.0.0/8") in tasks.allow
    assert len(tasks.allow) == 3
    assert (web.name, web.handler, web.listen.host) == ("Web", "web", "::1")


def test_count_by_cores():
    cores = len(os.sched_getaffinity(0))
    assert parse_settings(service("count = auto")).services[0].count == cores
    assert parse_settings(service("count = 10X")).services[0].count == 10 * cores


def test_all_problems_are_told_at_once():
    problems = problems_of(
        "x = 1\n[gtask]\npid_fil = x\nstop_timeout = nan\n[other]\n[worker:A]\ncount = 0\n"
        "count = 1\nconcurency = 1\n[gtask]\npid_file = y\nwords\n"
    )
    assert problems == [
        "f.ini: a line before the first [section] (line 1: x = 1)",
        "f.ini [worker:A] count: is given twice (line 8: count = 1)",
        "f.ini [gtask]: is there twice (line 10: [gtask])",
        "f.ini [gtask] pid_fil: unknown key, did you mean pid_file?",
        "f.ini [gtask] stop_timeout: expected a number of seconds, 0 or more, not 'nan'",
        "f.ini [other]: unknown section, expected [gtask] or [worker:NAME]",
        'f.ini [worker:A] count: expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not \'0\'',
        "f.ini [worker:A] concurency: unknown key, did you mean concurrency?",
        "f.ini [worker:A] listen: is missing",
    ]


def test_one_mistake_is_told_once():
    told = problems_of(service("certfile = /no/such\nkeyfile = setup.cfg"))
    assert told == ["f.ini [worker:A] certfile: there is no file /no/such"]
    taken = "".join(service("").replace(":A", f":{name}") for name in "ABC")
    assert len(problems_of(taken)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [worker:NAME] section"),
        ("[gtask]\n", "no [worker:NAME] section"),
        ("[worker:]\n", "unknown section"),
        ("[DEFAULT]\ncount = 2\n" + SERVICE, "[DEFAULT]: unknown section"),
        ("[worker:A]\nnonsense\n", "f.ini: expected KEY = VALUE (line 2: nonsense)"),
        (service("") + service("").replace(":A", ": A"), "[worker:A] name: is taken"),
        (service("") + service("").replace(":A", ":B"), "listen: text://127.0.0.1:1 is taken by A"),
        (service("") + service("").replace(":A", ":B").replace("127.0.0.1", "0.0.0.0"), "is taken by A"),
        ("[worker:A]\nlisten = text://127.0.0.1:1\n", "tasks: is missing"),
        ("[worker:A]\nlisten = text://127.0.0.1:1\ntasks = ,\n", "tasks: is missing"),
        ("[worker:A]\nlisten = websocket://127.0.0.1:1\n", "handler: is missing"),
        ("[worker:A]\nlisten = websocket://h:1\nhandler = h\ntasks = t\n", "cannot be served by websocket"),
        ("[worker:A]\nlisten =\n", "listen: '' has no scheme"),
        ("[worker:A]\nlisten = text://h:1\n  count = 4\n", "listen: expected one line of text"),
        (SERVICE.replace("text:", "http:"), "unknown scheme 'http'"),
        (SERVICE.replace("://127.0.0.1:1", "+unix:///" + "x" * 107), "at most 107 bytes"),
        (f"[gtask]\ncontrol = {'x' * 108}\n" + SERVICE, "[gtask] control: the path of a unix socket"),
        ("[gtask]\npython_path = /no/such\n" + SERVICE, "python_path: there is no directory /no/such"),
        ("[gtask]\nlog_level = loud\n" + SERVICE, "expected debug or info or warning or error"),
        (service("Count = 3"), "Count: unknown key, did you mean count?"),
        (service("handler = h"), "tasks or a handler, not both"),
        (service("keyfile = setup.cfg"), "keyfile: needs certfile"),
        (service("cafile = setup.cfg"), "cafile: needs certfile"),
        (service("certfile = /no/such"), "there is no file /no/such"),
        (service("user = nobody-of-that-name"), "there is no user"),
        (service("group = nobody-of-that-name"), "there is no group"),
        (service("allow = 10.0.0.1/8"), "10.0.0.1/8 has host bits set"),
        (service("allow = localhost"), "'localhost' does not appear to be an IPv4 or IPv6 network"),
        (service("origins = app.example.org"), "'app.example.org' is no origin"),
        (service("origins = https://app.example.org/page"), "is no origin"),
        (service("socket_mode = 999"), "octal mode"),
        (service("socket_mode = 1777"), "octal mode"),
        (service("max_frame_bytes = 1e6"), "whole number"),
        (service("max_frame_bytes = " + "9" * 5000), "whole number"),
        (service("max_frame_bytes = ١"), "whole number"),
        (service("task_timeout = -1"), "number of seconds"),
        (service("task_timeout = inf"), "number of seconds"),
        (service("task_timeout = 1_0"), "number of seconds"),
        (service("task_timeout = 1000000000"), "number of seconds"),
        (service("concurrency = 0"), "at least 1"),
        (service("backlog = 65536"), "at least 1 and at most 65535"),
        (service("count = 0x"), "1 to 1000 processes"),
        (service("count = 9999x"), "1 to 1000 processes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, words):
    assert any(words in problem for problem in problems_of(text)), problems_of(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("text://127.0.0.1:0", "text://127.0.0.1:0"),
        ("text://127.0.0.1:1", "text://127.0.0.1:2"),
        ("text://127.0.0.1:1", "text://[::]:1"),
        ("text+unix:///a", "text+unix:///b"),
        ("text+unix:///a", "text://127.0.0.1:0"),
    ],
)
def test_places_that_go_together(one, other):
    made = make_settings([make_service("A", one), make_service("B", other)])
    assert len(made.services) == 2


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.ini: No such file"):
        load_settings(str(tmp_path / "none.ini"))
    with pytest.raises(ConfigError, match="Is a directory"):
        load_settings(str(tmp_path))
    bad = tmp_path / "bad.ini"
    bad.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(str(bad))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path):
    file = tmp_path / "bom.ini"
    file.write_text(SERVICE, encoding="utf-8-sig")
    assert load_settings(str(file)).services[0].name == "A"


def test_the_shipped_file_is_right():
    tasks, web = load_settings(str(ROOT / "conf/worker.ini")).services
    assert (tasks.listen.protocol, web.listen.protocol) == ("text", "websocket")


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


def test_options_survive_being_read_again():
    made = make_service("A", "text://h:1", allow="10.0.0.0/8", count="2x", origins=("*",))
    given = {one.name: getattr(made, one.name) for one in fields(made)}
    assert make_service(**given) == made


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", True), ("count", None), ("count", 1.5), ("concurrency", "many"), ("task_timeout", None),
        ("task_timeout", False), ("task_timeout", float("nan")), ("allow", None), ("allow", 5), ("allow", [5]),
        ("tasks", b"bytes"), ("handler", 3), ("socket_mode", 0o1777), ("origins", [None]), ("certfile", 0.5),
    ],
)  # fmt: skip
def test_a_value_of_a_wrong_type_is_a_problem_and_no_accident(key, value):
    with pytest.raises(ConfigError, match=f"^worker A: {key}: "):
        make_service("A", "text://h:1", **{key: value})


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
