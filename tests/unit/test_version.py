"""Which gtask this is."""

from __future__ import annotations

import platform

import gtask
from gtask.compiled import how
from gtask.version import what_runs


def test_what_runs():
    assert what_runs() == f"{gtask.__version__} ({how()}, Python {platform.python_version()})"
