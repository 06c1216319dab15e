from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.printable import printable, printable_json, printable_text, shortened


class Silent:
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("작업 done", "작업 done"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[2J\x9b2J\x7f\0", r"\x1b[2J\x9b2J\x7f\x00"),
        ("\u2028\u202egnp.exe", r"\u2028\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        (None, "None"),
        (7, "7"),
        pytest.param(10**5000, "<int that cannot be shown: ValueError>", id="huge"),
        (Silent(), "<Silent that cannot be shown: SystemExit>"),
        ("x" * 300, "x" * 200 + "… (300 characters)"),
    ],
)
def test_what_people_read(value, shown):
    assert printable(value) == shown


@given(st.text())
def test_no_text_has_more_than_one_line_or_gives_orders(text: str):
    shown = printable(text)
    assert len(shown.splitlines()) <= 1
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in shown)
    shown.encode()


def test_text_of_several_lines_keeps_them():
    assert printable_text("a\n\tb\x1b\r\n") == "a\n\tb\\x1b\\r\n"


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner)))
def test_json_keeps_its_value(value):
    shown = printable_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(shown) == value


def test_what_is_short_stays():
    assert shortened("abc\n", 4) == "abc\n"
    assert shortened("abcde", 4) == "abcd… (5 characters)"
