"""How one value is read: from INI text, and from what a program passed."""

from __future__ import annotations

import ipaddress
import os

import pytest

from gtask.address import Address
from gtask.config import make_service, parse_settings, values
from gtask.config.values import BadValue
from gtask.errors import ConfigError

from .texts import SERVICE, problems_of, service


@pytest.mark.parametrize(
    ("read", "given", "value"),
    [
        (values.text, " a b ", "a b"),
        (values.one_of("text", "json"), "JSON", "json"),
        (values.names, "a, b\nc d", ("a", "b", "c", "d")),
        (values.names, ["a", " b "], ("a", "b")),
        (values.integer(-2), "-2", -2),
        (values.integer(0, 5), 5, 5),
        (values.seconds, "1.5", 1.5),
        (values.seconds, 2, 2.0),
        (values.process_count, "7", 7),
        (values.file_mode, "0o640", 0o640),
        (values.file_mode, 0o600, 0o600),
        (values.address, "text://h:1", Address("text", "h", 1)),
        (values.address, Address("text", "h", 1), Address("text", "h", 1)),
        (values.socket_path, "x" * 107, "x" * 107),
        (values.networks, "127.0.0.1", (ipaddress.ip_network("127.0.0.1/32"),)),
        (values.origins, "* https://a.example", ("*", "https://a.example")),
        (values.user, "root", "root"),
        (values.group, "root", "root"),
        (values.existing_file, __file__, __file__),
        (values.existing_folders, "/, /tmp", ("/", "/tmp")),
    ],
)
def test_what_a_value_stands_for(read, given, value):
    assert read(given) == value
    assert type(read(given)) is type(value)


def test_count_by_cores():
    cores = len(os.sched_getaffinity(0))
    assert parse_settings(service("count = auto")).services[0].count == cores
    assert parse_settings(service("count = 10X")).services[0].count == 10 * cores


def test_a_bad_value_does_not_name_its_key():
    with pytest.raises(BadValue, match=r"^expected a whole number of at least 1, not 'x'$"):
        values.integer(1)("x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worker:A]\nlisten =\n", "listen: '' has no scheme"),
        ("[worker:A]\nlisten = text://h:1\n  count = 4\n", "listen: expected one line of text"),
        (SERVICE.replace("text:", "http:"), "unknown scheme 'http'"),
        (SERVICE.replace("://127.0.0.1:1", "+unix:///" + "x" * 107), "at most 107 bytes"),
        (f"[gtask]\ncontrol = {'x' * 108}\n" + SERVICE, "[gtask] control: the path of a unix socket"),
        ("[gtask]\npython_path = /no/such\n" + SERVICE, "python_path: there is no directory /no/such"),
        ("[gtask]\nlog_level = loud\n" + SERVICE, "expected debug or info or warning or error"),
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
