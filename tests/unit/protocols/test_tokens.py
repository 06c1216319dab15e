"""Both ways to look at JSON's tokens: whatever ujson reads, each has the standard library's verdict."""

from __future__ import annotations

import pytest
import ujson
from hypothesis import given
from hypothesis import strategies as st

from gtask.protocols.tokens import scan, search

from ...support import standard_json


def check(text: str) -> None:
    try:
        ujson.loads(text)
    except ValueError:
        return
    expected, _ = standard_json.verdict(text)
    assert {way.__name__: way(text.encode()) for way in (scan, search)} == {
        "scan": expected,
        "search": expected,
    }


@given(st.text(alphabet='-+.0123eEN"\\[]{},: \t\r\n\x01', max_size=16))
def test_a_soup_of_tokens(text):
    check(text)


@given(st.text(alphabet="-+.0129eE", max_size=8), st.sampled_from(["[%s]", '{"a":%s}', " %s\t"]))
def test_numbers(number, frame):
    check(frame % number)


@pytest.mark.parametrize(
    "text",
    ['{"a":"2.0","b":[1.5,10]}', '"a\\\\"', '"a\\""', '"\\', '"', "1.e5", "[1.5.5]", "-", "1E+5"],
)
def test_a_few_by_hand(text):
    check(text)
