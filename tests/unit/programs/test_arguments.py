"""The words of a command line as a task's arguments."""

from __future__ import annotations

import argparse

import pytest

from gtask.programs.arguments import read_arguments, read_json, seconds, split_words


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


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False)
    made.add_argument("places", nargs="*")
    made.add_argument("--flag", action="store_true")
    made.add_argument("--value", type=int)
    return made


@pytest.mark.parametrize(
    ("words", "front", "arguments"),
    [
        ("U F -1 -1e3 --2 -x", "U F", "-1 -1e3 --2 -x"),
        ("U F a=-5 b:=-5", "U F", "a=-5 b:=-5"),
        ("U F 1 --flag 2 --value -3 -4", "U F --flag --value -3", "1 2 -4"),
        ("U F --value=3 --values=3 --fla", "U F --value=3", "--values=3 --fla"),
        ("--value 3 U --flag F 1", "--value 3 U --flag F", "1"),
        ("U F -- --flag -h -- 1", "U F", "--flag -h -- 1"),
        ("-- U F --flag", "-- U F", "--flag"),
        ("U -- F --flag", "U -- F", "--flag"),
        ("U F -", "U F", "-"),
        ("U F -h", "U F -h", ""),
        ("--unknown U F 1", "--unknown U F", "1"),
        ("U F 1 --value", "U F --value", "1"),
        ("", "", ""),
    ],
)
def test_what_is_an_option_and_what_an_argument(words, front, arguments):
    assert split_words(words.split(), parser()) == (front.split(), arguments.split())


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e9", "words", ""])
def test_times_that_cannot_be(text):
    assert seconds("0.5") == 0.5
    with pytest.raises(argparse.ArgumentTypeError, match="a number of seconds, 0 or more"):
        seconds(text)


@pytest.mark.parametrize("word", ["-x", "--verbose", 'a "quoted" one'])
def test_how_to_write_a_string_is_said(word):
    with pytest.raises(ValueError, match="neither") as caught:
        read_arguments([word])
    string = str(caught.value).partition("(a string: '")[2].removesuffix("')")
    assert read_arguments([string]) == [word]
