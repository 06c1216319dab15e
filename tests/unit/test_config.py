"""Configuration: what is read, and that everything wrong is told at once."""

from __future__ import annotations

import ipaddress
import os

import pytest

from gtask.address import Address
from gtask.config import ServiceSettings, Settings, load_settings, make_service, parse_settings
from gtask.errors import ConfigError

GOOD = """
[gtask]
stop_timeout = 5 ; seconds
python_path = a, b
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


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_settings(text, "f.ini")
    return caught.value.problems


def service(lines: str) -> str:
    return f"[worker:A]\nlisten = text://127.0.0.1:1\ntasks = t\n{lines}\n"


def test_a_good_file():
    settings = parse_settings(GOOD, "f.ini")
    tasks, web = settings.services
    assert settings.stop_timeout == 5.0
    assert settings.python_path == ("a", "b")
    assert tasks.listen == Address("text", "127.0.0.1", 12345)
    assert tasks.tasks == ("one.two", "three")
    assert (tasks.count, tasks.socket_mode, tasks.idle_timeout) == (3, 0o600, 0.0)
    assert ipaddress.ip_network("10.0.0.0/8") in tasks.allow
    assert len(tasks.allow) == 3
    assert (web.name, web.handler, web.listen.host) == ("Web", "web", "::1")


def test_count_by_cores():
    cores = os.cpu_count()
    assert parse_settings(service("count = auto")).services[0].count == cores
    assert parse_settings(service("count = 10X")).services[0].count == 10 * cores


def test_all_problems_are_told_at_once():
    problems = problems_of(
        "[gtask]\npid_fil = x\nstop_timeout = nan\n[other]\n[worker:A]\ncount = 0\nconcurency = 1\n"
    )
    assert problems == [
        "f.ini [gtask] pid_fil: unknown key, did you mean pid_file?",
        "f.ini [gtask] stop_timeout: expected a number of seconds, 0 or more, not 'nan'",
        "f.ini [other]: unknown section, expected [gtask] or [worker:NAME]",
        'f.ini [worker:A] count: expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not \'0\'',
        "f.ini [worker:A] concurency: unknown key, did you mean concurrency?",
        "f.ini [worker:A] listen: is missing",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [worker:NAME] section"),
        ("[gtask]\n", "no [worker:NAME] section"),
        ("x = 1\n", "line 1 stands before the first [section]"),
        ("[worker:A]\nnonsense\n", "line 2 is no KEY = VALUE"),
        (service("count = 1\ncount = 2"), "[worker:A] count: is given twice"),
        (service("") + service(""), "[worker:A]: is there twice"),
        (service("") + service("").replace(":A", ":B"), "is taken by [worker:A]"),
        ("[worker:A]\nlisten = text://127.0.0.1:1\n", "tasks: is missing"),
        ("[worker:A]\nlisten = websocket://127.0.0.1:1\n", "handler: is missing"),
        ("[worker:A]\nlisten = websocket://h:1\nhandler = h\ntasks = t\n", "cannot be served by websocket"),
        (service("handler = h"), "tasks or a handler, not both"),
        (service("listen = http://h:1").replace("listen = text://127.0.0.1:1\n", ""), "unknown scheme 'http'"),
        (service("keyfile = setup.cfg"), "keyfile: needs certfile"),
        (service("certfile = /no/such"), "there is no file /no/such"),
        (service("user = nobody-of-that-name"), "there is no user"),
        (service("group = nobody-of-that-name"), "there is no group"),
        (service("allow = 10.0.0.1/8"), "is no network"),
        (service("socket_mode = 999"), "octal mode"),
        (service("max_frame_bytes = 1e6"), "whole number"),
        (service("task_timeout = -1"), "number of seconds"),
        (service("task_timeout = inf"), "number of seconds"),
        (service("concurrency = 0"), "at least 1"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(text, words):
    assert any(words in problem for problem in problems_of(text)), problems_of(text)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(str(tmp_path / "none.ini"))
    bad = tmp_path / "bad.ini"
    bad.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_settings(str(bad))


def test_a_programs_options_have_the_same_rules():
    made = make_service("A", "text://h:1", count=2, tasks=["a"], task_timeout=1)
    assert made == ServiceSettings(
        name="A", listen=Address("text", "h", 1), count=2, tasks=("a",), task_timeout=1.0
    )
    with pytest.raises(TypeError, match="did you mean count"):
        make_service("A", "text://h:1", cout=2)
    with pytest.raises(ConfigError, match="count"):
        make_service("A", "text://h:1", count=True)


def test_defaults_need_no_file():
    assert Settings().log_format == "text"
