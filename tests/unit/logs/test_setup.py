from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from gtask.config import Settings
from gtask.logs.setup import setup_logging


def test_json_lines_hold_the_traceback(root, tmp_path: Path):
    path = tmp_path / "logs" / "x.log"
    setup_logging(Settings(log_file=str(path), log_format="json"))
    try:
        raise ValueError("no\nway")
    except ValueError:
        logging.getLogger("a.b").exception("failed: %s", "x\ny")
    (line,) = path.read_text().splitlines()
    record = json.loads(line)
    assert (record["level"], record["logger"], record["message"]) == (
        "error",
        "a.b",
        "failed: x\ny",
    )
    assert record["exception"].endswith("ValueError: no\nway")


def test_set_up_again_it_opens_the_file_anew(root, tmp_path: Path):
    path = tmp_path / "x.log"
    setup_logging(Settings(log_file=str(path)))
    logging.warning("one")
    path.rename(tmp_path / "x.1")
    setup_logging(Settings(log_file=str(path)))
    logging.warning("two")
    assert "one" in (tmp_path / "x.1").read_text()
    assert "one" not in path.read_text()
    assert "two" in path.read_text()
    assert sum(type(each).__module__ == "gtask.logs.handler" for each in root.handlers) == 1


def test_a_file_that_cannot_be_opened_leaves_the_log_as_it_was(root, tmp_path: Path):
    path = tmp_path / "x.log"
    setup_logging(Settings(log_file=str(path)))
    with pytest.raises(OSError, match="File exists"):
        setup_logging(Settings(log_file=str(path / "y")))
    logging.warning("still here")
    assert "still here" in path.read_text()


def test_a_script_that_has_set_it_up_keeps_its_own(root):
    own = logging.NullHandler()
    root.addHandler(own)
    setup_logging(Settings())
    assert own in root.handlers
    assert not any(type(each).__module__ == "gtask.logs.handler" for each in root.handlers)


def test_a_full_disk_loses_lines_only(root, capsys):
    setup_logging(Settings(log_file="/dev/full"))
    logging.warning("lost")
    assert capsys.readouterr().err == ""
