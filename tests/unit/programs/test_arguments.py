"""The words of a command line as a task's arguments."""

from __future__ import annotations

import pytest

from gtask.programs.arguments import read_arguments, read_json


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ([], None),
        (["a=1", "b:=1"], {"a": "1", "b": 1}),
        (["a=", "b=x=y", "작업=완료"], {"a": "", "b": "x=y", "작업": "완료"}),
        (["a.b-c=1"], {"a.b-c": "1"}),
        (["a=two\nlines"], {"a": "two\nlines"}),
        (["1", '"x"', "null"], [1, "x", None]),
        (["[1, 2]"], [1, 2]),
        (["[1]", "[2]"], [[1], [2]]),
        (['{"a": 1}'], {"a": 1}),
        (["[]"], []),
    ],
)
def test_what_words_stand_for(words, arguments):
    assert read_arguments(words) == arguments


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a=1", "a:=2"], "a is given twice"),
        (["a=1", "2"], "either all named .* or all positional"),
        (["words"], "'words' is neither key=value nor JSON"),
        (["1=2"], "is neither"),
        (["a:=words"], "'words' is neither"),
    ],
)
def test_what_is_wrong_is_said(words, complaint):
    with pytest.raises(ValueError, match=complaint):
        read_arguments(words)


def test_standard_input_holds_all_of_them():
    assert read_json('{"a": [1]}') == {"a": [1]}
    assert read_json(" [] \n") == []
    with pytest.raises(ValueError, match="must hold a JSON object or array"):
        read_json("1")
    with pytest.raises(ValueError, match="is neither"):
        read_json("")
