from __future__ import annotations

import logging

import pytest

from gtask.master import complaints as module
from gtask.master.complaints import LINES, LINES_SECONDS, Complaints


def test_some_lines_a_minute_and_how_many_were_left_out(caplog: pytest.LogCaptureFixture):
    complaints = Complaints()
    for number in range(LINES + 5):
        complaints.add(f"line {number}", 100.0)
    assert [each.getMessage() for each in caplog.records] == [f"line {n}" for n in range(LINES)]
    caplog.clear()
    complaints.add("later", 100.0 + LINES_SECONDS)
    assert [each.getMessage() for each in caplog.records] == [
        "5 more lines like the last were not logged",
        "later",
    ]


def test_a_mistake_is_logged_and_ends_nothing(caplog, monkeypatch: pytest.MonkeyPatch):
    slept: list[float] = []
    monkeypatch.setattr(module.native, "sleep", slept.append)
    complaints = Complaints()
    for _ in range(100):
        with complaints.going_on():
            raise KeyError("a bug")
    assert len(caplog.records) == LINES
    assert caplog.records[0].exc_info
    assert caplog.records[0].levelno == logging.ERROR
    assert sum(slept) >= 9, "100 a second would be a busy loop"


def test_a_log_that_fails_ends_nothing_either(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module.native, "sleep", lambda seconds: None)
    monkeypatch.setattr(module, "log", None)
    with Complaints().going_on():
        raise KeyError("a bug")


def test_an_exit_is_one():
    with pytest.raises(SystemExit), Complaints().going_on():
        raise SystemExit(1)
