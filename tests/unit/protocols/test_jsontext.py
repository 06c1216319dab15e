"""JSON: the verdict of RFC 8259, the values of the standard library."""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import json
import math
from collections import Counter, OrderedDict, UserDict, namedtuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gtask.errors import InternalError, ProtocolError
from gtask.protocols.jsontext import dumps, loads

from ...support import standard_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


def strict(text: bytes) -> tuple[bool, object]:
    """The standard library's verdict."""
    try:
        return standard_json.verdict(text.decode())
    except UnicodeDecodeError:
        return False, None


LONG_STRING = json.dumps(
    r"-1. 01 \" \\ , 0 : .5 " * 30
).encode()  # of what needs a look outside strings


def verdict(text: bytes) -> tuple[bool, object]:
    try:
        return True, loads(text)
    except ProtocolError as error:
        return error.code != -32700, None


@given(values)
def test_what_json_writes_is_read(value):
    assert loads(json.dumps(value).encode()) == value
    assert (
        loads(json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace")) is not ...
    )


@given(values)
def test_what_we_write_is_one_line_of_ascii_that_json_reads(value):
    line = dumps(value)
    assert line.isascii()
    assert b"\n" not in line
    assert json.loads(line) == value


@given(
    values,
    st.lists(
        st.tuples(st.integers(0), st.sampled_from(list('-+.0123eENI"\\[]{}:, \t\x01nul'))),
        max_size=3,
    ),
)
def test_a_mutated_text_gets_the_verdict_of_the_standard_library(value, edits):
    text = json.dumps(value)
    for place, character in edits:
        place %= len(text) + 1
        text = text[:place] + character + text[place + (place % 2) :]
    expected, theirs = strict(text.encode())
    accepted, ours = verdict(text.encode())
    assert accepted == expected, text
    if accepted:
        assert ours == theirs


@given(st.text(alphabet='-+.0123eE[], "2N', max_size=12))
def test_numbers_get_the_verdict_of_the_standard_library(text):
    assert verdict(text.encode())[0] == strict(text.encode())[0]


@pytest.mark.parametrize(
    "text",
    [
        "[-]", "[-01]", "[-012]", "[012]", "[-2.]", "[0.e1]", "[2.e+3]", "[2.e-3]", "[2.e3]", "[1.]",
        "[-.123]", "[.5]", "[NaN]", "[Infinity]", "[-Infinity]", '["a\tb"]', '["\x00"]', '["a\x1f"]',
        '{"a":"2.0","b":[1.,10]}', '["2.0",1.]', "", " ", "nul", "[1 2]", "[1,]", "{1:2}", "'a'",
        "[1]x", "\ufeff[]", "//\n1", '"\\x41"', '"\\u12"', '"', "[" * 2000 + "]" * 2000,
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(text):
    with pytest.raises(ProtocolError):
        loads(text.encode())


@pytest.mark.parametrize("long", [b'"a"', LONG_STRING])
@pytest.mark.parametrize(
    "number",
    ["0", "10", "1.5", "-0", "1e9", "-", "01", "-01", "1.", ".5", "-.5", "NaN", "Infinity"],
)
def test_numbers_beside_strings_get_the_verdict_of_the_standard_library(number, long):
    for text in (
        b'{"a":%b,"b":%b}' % (long, number.encode()),
        b"[%b, %b]" % (long, number.encode()),
        b'{"jsonrpc":"2.0","b":%b,"a":%b}' % (number.encode(), long),
    ):
        assert verdict(text) == strict(text)


def test_long_strings_are_escaped_too():
    text = 'é "\\/\x7f\ud800\u2028\n' * 100
    assert json.loads(dumps(text)) == text
    assert dumps(text).isascii()


@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\xf4\x90\x80\x80"])
def test_what_is_not_utf8_is_refused(text):
    with pytest.raises(ProtocolError):
        loads(text)


@pytest.mark.parametrize(
    "text", ["-0", "1E5", "1e05", "0.0", "[2.0,10]", '"2.0"', ' {"a" : [ ] }\t']
)
def test_unusual_json_is_read(text):
    assert loads(text.encode()) == json.loads(text)


def test_integers_are_exact():
    assert loads(b"123456789012345678901234567890") == 123456789012345678901234567890
    assert dumps(2**70) == b"%d" % 2**70


def test_text_beyond_ascii_is_escaped():
    assert dumps("한😀\u2028/") == b'"\\ud55c\\ud83d\\ude00\\u2028/"'
    assert dumps("\ud800") == b'"\\ud800"'
    assert dumps({"a": "한"}) == b'{"a":"\\ud55c"}'


class Inserts:
    def __json__(self) -> str:
        return '{"a":1}'

    def toDict(self) -> dict[str, int]:
        return {"a": 1}


class Strange(str):
    def __str__(self) -> str:
        return "strange"


class Colour(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 3


class Name(enum.StrEnum):
    A = "a"


class Ratio(float):
    def __repr__(self) -> str:
        return "half"


Point = namedtuple("Point", "x y")

circular: list[object] = []
circular.append(circular)
circular_object: dict[str, object] = {}
circular_object["self"] = {"again": circular_object}


def nested(levels: int) -> object:
    return functools.reduce(lambda inner, _: [inner], range(levels), 1)


def name_of(value: object) -> str:
    """For a test's name, as a huge integer has no text."""
    return type(value).__name__


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, b"bytes", bytearray(b"a"), 1j, range(3), {"a": 1}.keys(), (x for x in "ab"),
        Inserts(), Colour.RED, datetime.date(2026, 1, 2), UserDict(a=1),
        decimal.Decimal("0.1"), decimal.Decimal("12345678901234567890.12"), decimal.Decimal("NaN"),
        math.nan, math.inf, -math.inf, 10**5000, -(10**5000),
        circular, circular_object, nested(1001), nested(100_000),
    ],
    ids=name_of,
)  # fmt: skip
def test_what_is_not_json_is_not_written(value):
    for whole in (
        value,
        [value],
        {"a": value},
        {"a": ["b", (value,)]},
        {1: value},
        Point(1, value),
    ):
        with pytest.raises(InternalError, match="not JSON"):
            dumps(whole)


@pytest.mark.parametrize(
    "key",
    [
        (1, 2), b"k", Inserts(), Colour.RED, datetime.date(2026, 1, 2), decimal.Decimal("1.10"),
        math.nan, math.inf, 10**5000,
    ],
    ids=name_of,
)  # fmt: skip
def test_what_is_no_key_is_not_written(key):
    for whole in ({key: 1}, {"a": 1, key: 2}, [{"a": {key: 1}}]):
        with pytest.raises(InternalError):
            dumps(whole)


@pytest.mark.parametrize(
    "value",
    [
        (1, "a", None), Point(1, [2]), Size.BIG, Name.A, Strange("real"), Ratio(0.5), -0.0, True,
        OrderedDict(b=1, a=2), Counter("aab"), 10**4299, -(10**4299), "\ud800",
        {1: "a"}, {-(2**70): 1}, {1.5: 1}, {1e22: 1}, {None: 1}, {True: 1, False: 2}, {Size.BIG: 1},
        {Name.A: 1}, {Strange("real"): 1}, {Ratio(0.5): 1}, {"\ud800": 1}, {"a": 1, 2: [(3,)]},
        nested(400),
    ],
    ids=name_of,
)  # fmt: skip
def test_what_the_standard_library_writes_is_written_as_it_does(value):
    for whole in (value, [value], {"a": value}, (0, value)):
        line = dumps(whole)
        assert json.loads(line) == json.loads(json.dumps(whole))
        assert line.isascii()
        assert b"\n" not in line


def test_floats_are_exact():
    values = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, 1e22, 123456789.12345679, 2.0, -0.0]
    assert json.loads(dumps(values)) == values
    assert json.loads(dumps({2.0: 1e16, 0.1: 1})) == {"2.0": 1e16, "0.1": 1}


def test_keys_that_would_be_the_same_are_not_written():
    for twice in ({1: "a", "1": "b"}, {None: 1, "null": 2}, {Size.BIG: 1, "3": 2}):
        with pytest.raises(InternalError, match="two keys"):
            dumps(twice)
