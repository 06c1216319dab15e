"""`--version`."""

from __future__ import annotations

import argparse

import pytest

import gtask
from gtask.programs.version import add_version_option


def test_it_tells_what_runs(capsys):
    parser = argparse.ArgumentParser(prog="p")
    add_version_option(parser)
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"p {gtask.__version__} (")
