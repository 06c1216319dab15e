"""Who gets the records of gtask's loggers, where no event loop runs."""

from __future__ import annotations

import logging
import logging.config
import re
import sys
from pathlib import Path

import pytest

from gtask.config import Settings
from gtask.logs import delivery
from gtask.logs.loggers import get_logger
from gtask.logs.setup import setup_logging

log = get_logger("gtask.tests")


class Collecting(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def messages(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Raising(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise ConnectionError("no")


class Sulking:
    def __repr__(self) -> str:
        raise ValueError


def raising(record: logging.LogRecord) -> bool:
    raise LookupError("request")


@pytest.fixture
def file(root: logging.Logger, tmp_path: Path) -> Path:
    setup_logging(Settings(log_file=str(tmp_path / "x.log")))
    return tmp_path / "x.log"


def test_a_record_is_as_the_standard_librarys(root):
    handler = Collecting()
    root.addHandler(handler)
    log.warning("a %s", 1)
    ours = handler.records[0]
    logging.getLogger("gtask.tests").warning("a %s", 1)
    theirs = handler.records[1]
    assert vars(theirs).keys() - {"message"} <= vars(ours).keys()
    for name in ("name", "levelno", "levelname", "process", "processName", "thread", "threadName"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.getMessage() == "a 1"
    assert abs(theirs.created - ours.created) < 1
    logging.Formatter("%(asctime)s %(filename)s:%(lineno)d %(module)s %(funcName)s").format(ours)


def test_levels_are_obeyed(root):
    handler = Collecting()
    handler.setLevel(logging.ERROR)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    log.info("too low for the handler")
    log.debug("too low for the logger")
    log.error("told")
    logging.disable(logging.ERROR)
    try:
        log.error("disabled by the user")
    finally:
        logging.disable(logging.NOTSET)
    assert handler.messages == ["told"]


def test_an_exception_is_the_one_that_is_handled_or_given(root):
    handler = Collecting()
    root.addHandler(handler)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as error:
        log.exception("handled")
        log.error("given", exc_info=error)
        log.error("as a tuple", exc_info=sys.exc_info())
    log.error("none")
    kinds = [record.exc_info and record.exc_info[0] for record in handler.records]
    assert kinds == [ZeroDivisionError] * 3 + [None]


def test_what_cannot_be_shown_is_told_of(root):
    handler = Collecting()
    root.addHandler(handler)
    log.warning("%r has ended", Sulking())
    log.warning("%d", "no number")
    assert handler.messages == [
        "%r has ended (which cannot be shown: ValueError)",
        "%d (which cannot be shown: TypeError)",
    ]


def test_what_handlers_raise_ends_here_and_is_told_once(root, file: Path):
    handler = Collecting()
    root.addHandler(Raising())
    root.addHandler(handler)
    log.warning("one")
    log.warning("two")
    assert handler.messages == ["one", "two"]
    assert file.read_text().count("Raising has failed for a record; told once") == 1
    assert "ConnectionError: no" in file.read_text()
    assert "one" in file.read_text()


@pytest.mark.parametrize("where", ["logger", "our handler", "a handler"])
def test_a_filter_that_raises_holds_nothing_back(root, file: Path, where: str):
    other = Collecting()
    root.addHandler(other)
    standard = logging.getLogger("gtask.tests")
    filtered = {"logger": standard, "our handler": root.handlers[0], "a handler": other}[where]
    filtered.addFilter(raising)
    try:
        log.warning("told")
    finally:
        filtered.removeFilter(raising)
    assert "gtask.tests: told" in file.read_text()
    assert file.read_text().count("told once") == 1
    assert other.messages == ([] if where == "a handler" else ["told"])


def test_a_filter_that_says_no_is_obeyed(root, file: Path):
    standard = logging.getLogger("gtask.tests")
    refuse = lambda record: False  # noqa: E731
    for filtered in (standard, root.handlers[0]):
        filtered.addFilter(refuse)
        log.warning("not told")
        filtered.removeFilter(refuse)
    assert "not told" not in file.read_text()


def test_a_formatter_that_raises_is_passed_over(root, file: Path):
    root.handlers[0].setFormatter(logging.Formatter("%(request)s"))
    log.warning("one")
    log.warning("two")
    text = file.read_text()
    assert "gtask.tests: one" in text
    assert "gtask.tests: two" in text
    assert text.count("the formatter has failed") == 1


def test_a_record_factory_of_the_users_is_asked(root):
    def factory(*args, **named):
        record = logging.LogRecord(*args, **named)
        record.request = 7
        return record

    handler = Collecting()
    root.addHandler(handler)
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        log.warning("told")
    finally:
        logging.setLogRecordFactory(before)
    assert handler.records[0].request == 7


@pytest.mark.parametrize("handlers", [{}, {"root": {"handlers": []}}])
def test_a_users_configuration_that_has_no_handler_leaves_ours(root, file: Path, handlers: dict):
    logging.config.dictConfig({"version": 1, **handlers})
    assert logging.getLogger("gtask.tests").disabled
    log.warning("told")
    logging.getLogger("gtask.tests").disabled = False
    assert "told" in file.read_text()


def test_without_any_handler_the_last_resort_has_it(root, monkeypatch):
    handler = Collecting()
    root.handlers[:] = []  # pytest has put its own there again
    monkeypatch.setattr(logging, "lastResort", handler)
    log.warning("told")
    assert handler.messages == ["told"]
    monkeypatch.setattr(logging, "lastResort", None)
    log.warning("to nobody")


def test_complaints_are_bounded(root, file: Path):
    for number in range(100):
        delivery.complain(f"handler {number}", ValueError())
    assert file.read_text().count("told once") == delivery._MOST_COMPLAINTS


def test_nothing_of_gtasks_logs_another_way():
    sources = Path(delivery.__file__).parents[1]
    others = [path for path in sources.rglob("*.py") if path.parent.name != "logs"]
    assert len(others) > 50
    for path in others:
        assert not re.search(r"logging\.getLogger\(|\bprint_exc\(", path.read_text()), path
