from __future__ import annotations

import json
import logging
import re

import pytest

from gtask.logs.formats import JsonFormatter, TextFormatter, exception_text
from gtask.logs.records import make_record

FORGED = "2026-01-01 00:00:00.000 ERROR   1 gtask.master: forged"


def users(message, *args) -> logging.LogRecord:
    return logging.LogRecord("users", logging.INFO, "file.py", 1, message, args, None)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except type(error) as caught:
        return caught


def test_text_begins_with_the_time():
    line = TextFormatter().format(users("done in %d s", 3))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8}\.\d{3} INFO    \d+ users: done in 3 s", line)


def test_further_lines_of_a_message_are_indented():
    lines = TextFormatter().format(users(f"a\n{FORGED}\x1b[2J")).split("\n")
    assert lines[1:] == [f"    {FORGED}\\x1b[2J"]


def test_no_message_of_an_exception_has_a_line_of_its_own():
    first = raised(ValueError(f"no\n{FORGED} cause"))
    second = raised(KeyError(f"no\x1b\n{FORGED}"))
    second.__cause__ = first
    group = raised(ExceptionGroup(f"all\n{FORGED}", [second]))
    group.add_note(f"note\n{FORGED}")
    text = exception_text((type(group), group, group.__traceback__))
    assert not re.search(r"(?m)^\W*2026", text)
    assert text.count("forged") >= 4
    assert "Traceback (most recent call last):" in text
    assert "\x1b" not in text


def test_a_long_message_of_an_exception_is_cut():
    error = raised(ValueError("x" * 1_000_000))
    assert len(exception_text((ValueError, error, None))) < 20_000


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise SystemExit


def test_an_exception_that_cannot_be_shown():
    error = raised(Unspeakable())
    assert "Unspeakable" in exception_text((Unspeakable, error, error.__traceback__))


def test_json_has_a_line_for_each_record():
    record = make_record(
        "gtask.x", logging.ERROR, "a %s", ("b\nc",), raised(ValueError("d\ne")), "File x\nFile y"
    )
    line = json.loads(JsonFormatter().format(record))
    assert (line["level"], line["logger"], line["message"]) == ("error", "gtask.x", r"a b\nc")
    assert line["exception"].endswith("ValueError: d\ne")
    assert line["stacks"] == "File x\nFile y"


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter()])
def test_arguments_that_do_not_fit_are_told(formatter):
    line = formatter.format(users("%d tasks", "no number"))
    assert "'%d tasks' cannot be formatted: TypeError" in line


def test_a_text_that_was_made_before_is_shown():
    record = users("m")
    record.exc_text = "Traceback\nError"
    assert TextFormatter().format(record).endswith("m\nTraceback\nError")
    assert json.loads(JsonFormatter().format(record))["exception"] == "Traceback\nError"
