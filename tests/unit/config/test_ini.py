"""INI text: what is read, and that every line that is not used is told."""

from __future__ import annotations

import configparser
import ipaddress
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.address import Address
from gtask.config import Settings, find_master, load_settings, parse_settings
from gtask.config.ini import read_sections
from gtask.errors import ConfigError

from .texts import SERVICE, problems_of, service

ROOT = Path(__file__).resolve().parents[3]

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


def sections_of(text: str) -> tuple[dict[str, dict[str, str]], list[str]]:
    problems: list[str] = []
    return read_sections(text, "f.ini", problems), problems


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
        "f.ini [other]: unknown section, expected [gtask], [worker:NAME] or [cron:NAME]",
        'f.ini [worker:A] count: expected 1 to 1000 processes, "auto" or e.g. "10x" (ten per core), not \'0\'',
        "f.ini [worker:A] concurency: unknown key, did you mean concurrency?",
        "f.ini [worker:A] listen: is missing",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no [worker:NAME] section"),
        ("[gtask]\n", "no [worker:NAME] section"),
        ("[worker:]\n", "unknown section"),
        ("[]\n" + SERVICE, "f.ini []: unknown section"),
        ("[DEFAULT]\ncount = 2\n" + SERVICE, "[DEFAULT]: unknown section"),
        ("[worker:A]\nnonsense\n", "f.ini: expected KEY = VALUE (line 2: nonsense)"),
        ("[worker:A]\n = 5\n", "f.ini: expected KEY = VALUE (line 2: = 5)"),
    ],
)
def test_what_is_wrong_is_named(text, words):
    assert any(words in problem for problem in problems_of(text)), problems_of(text)


@pytest.mark.parametrize(
    "line", ["[worker:A", "[worker:A] count = 4", "[worker:A] # words", "[worker:A]]"]
)
def test_a_section_that_is_cut_is_told_and_what_is_in_it_is_looked_at(line):
    assert problems_of(service("cout = 1").replace("[worker:A]", line)) == [
        f"f.ini [worker:A]: expected nothing but [SECTION] (line 1: {line})",
        "f.ini [worker:A] cout: unknown key, did you mean count?",
    ]


def test_a_section_that_is_indented_is_no_part_of_the_value_before_it():
    text = service("  [worker:B]\n  listen = text://127.0.0.1:2\n  tasks = t\n    u")
    assert [(each.name, each.tasks) for each in parse_settings(text).services] == [
        ("A", ("t",)),
        ("B", ("t", "u")),
    ]


def test_a_line_that_is_wrong_takes_none_of_those_after_it_along():
    sections, problems = sections_of("[a]\nx = 1\nwords\n  y = 2\n")
    assert sections == {"a": {"x": "1", "y": "2"}}
    assert problems == ["f.ini: expected KEY = VALUE (line 3: words)"]


def test_what_a_second_value_goes_on_with_goes_with_it():
    sections, problems = sections_of("[a]\nx = 1\nx = 2\n  3\n")
    assert sections == {"a": {"x": "1"}}
    assert problems == ["f.ini [a] x: is given twice (line 3: x = 2)"]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (
            "allow = ::1\n  count = 3",
            "allow: holds 'count = 3'; if that is a key, it must not be indented",
        ),
        (
            "user =\n\tgroup = wheel",
            "user: holds 'group = wheel'; if that is a key, it must not be indented",
        ),
        (
            "allow =\n  ::1\n  count=3",
            "allow: holds 'count=3'; if that is a key, it must not be indented",
        ),
    ],
)
def test_keys_that_indentation_has_made_part_of_a_value_are_told(lines, told):
    assert any(f"f.ini [worker:A] {told}" in one for one in problems_of(service(lines)))


def test_so_are_those_of_the_whole_tree():
    problems = problems_of("[gtask]\npid_file =\n  control = x\n" + SERVICE)
    assert problems == [
        "f.ini [gtask] pid_file: holds 'control = x'; if that is a key, it must not be indented"
    ]


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x0c", "\x7f", "\x08"])
def test_control_characters_are_told(character):
    line = f"user = a{character}b"
    (problem, *_) = problems_of(service(line))
    assert problem == (
        f"f.ini: holds a control character, {character!r} (line 4: {line.replace(character, '?')})"
    )
    assert "control character" in problems_of(SERVICE.replace("A]", f"A{character}B]"))[0]


def test_any_other_name_of_a_service_will_do():
    text = SERVICE.replace("[worker:A]", "[worker:  일꾼 100% %d;x ]")
    assert parse_settings(text).services[0].name == "일꾼 100% %d;x"


def test_names_that_differ_by_blanks_are_the_same():
    text = SERVICE + SERVICE.replace("[worker:A]", "[worker: A]").replace(":1\n", ":2\n")
    assert problems_of(text) == ["f.ini [worker:A] name: is taken by another service"]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
def test_line_ends_of_other_systems(tmp_path, end):
    file = tmp_path / "other.ini"
    file.write_bytes(SERVICE.replace("\n", end).encode())
    assert load_settings(str(file)).services[0].tasks == ("t",)


# -- as configparser reads it ---------------------------------------------------------------------

INDENTS = st.sampled_from(["", "", "", " ", "  ", "\t", "\xa0"])
NAMES = st.sampled_from(["a", "b", "worker:A", "ä b", "=", "a;b", "a#b", "", " "])
VALUES = st.sampled_from(
    ["", "1", "text://h:1", "a = b", "a;b", "a ;b", "a #b", ";", "#", "]", " x "]
)
LINES = st.one_of(
    st.builds("[{}]{}".format, NAMES.filter(bool), st.sampled_from(["", "  ", " ; comment", " ;"])),
    st.builds("{}{}{}={}{}".format, INDENTS, NAMES, INDENTS, INDENTS, VALUES),
    st.builds("{}{}".format, INDENTS, VALUES),
    st.builds("{}{}{}".format, INDENTS, st.sampled_from(";#"), VALUES),
)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_valid_text_is_read_as_configparser_reads_it_and_no_other(text):
    parser = configparser.ConfigParser(
        interpolation=None,
        delimiters=("=",),
        inline_comment_prefixes=(";",),
        default_section="",
    )
    parser.optionxform = str
    sections, problems = sections_of(text)
    try:
        parser.read_string(text)
    except configparser.Error:
        assert problems
    else:
        assert problems == []
        assert sections == {name: without_gaps(parser[name]) for name in parser.sections()}


def without_gaps(keys) -> dict[str, str]:
    """Our values have no empty lines in them; nobody's reading of a value looks at them."""
    return {key: re.sub(r"\n+", "\n", value.strip()) for key, value in keys.items()}


# -- files ----------------------------------------------------------------------------------------


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


def test_the_master_of_a_broken_file_is_found(tmp_path):
    file = tmp_path / "broken.ini"
    file.write_bytes(
        b"words\n[gtask\ncontrol = a.sock ; here\npid_file = \xff.pid\ncontrol = b\n[x"
    )
    assert find_master(str(file)) == Settings(
        control="a.sock", pid_file="\udcff.pid", file=str(file)
    )


def test_the_master_of_a_file_that_is_gone_is_not_found():
    assert find_master("/no/such.ini") == Settings(file="/no/such.ini")
