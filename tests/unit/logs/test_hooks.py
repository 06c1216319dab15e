"""Hooks are set in a program of their own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys, threading, warnings
from gtask.config import Settings
from gtask.logs.hooks import install_hooks
from gtask.logs.setup import setup_logging

setup_logging(Settings(log_format="json"))
install_hooks()
"""


def run(code: str) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + code], capture_output=True, text=True, check=False
    )
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("code", "message", "exception"),
    [
        ("1 / 0", "the program ends", "ZeroDivisionError"),
        ("threading.Thread(target=lambda: 1 / 0, name='T').start()", "T has failed", "ZeroDiv"),
        ("threading.Thread(target=sys.exit).start()", None, None),
        (
            "class Ill:\n def __del__(self): 1 / 0\nIll()",
            "exception ignored in: <function Ill.__del__",
            "ZeroDiv",
        ),
        ("warnings.warn('old', DeprecationWarning)", "DeprecationWarning: old", None),
        ("warnings.showwarning('m', UserWarning, 'f', 1, open('/dev/null', 'w'))", None, None),
        (
            "h = logging.StreamHandler()\n"
            "def emit(record):\n try: 1 / 0\n except Exception: h.handleError(record)\n"
            "h.emit = emit\nlogging.getLogger().addHandler(h)\nlogging.warning('m')",
            "StreamHandler cannot handle the record 'm' of root",
            "ZeroDivisionError",
        ),
    ],
)
def test_what_python_would_print_is_a_record(code, message, exception):
    records = run(code)
    if message is None:
        assert records == []
        return
    (record,) = [record for record in records if message in record["message"]]
    assert (exception or "") in record.get("exception", "")


def test_a_users_hook_stays():
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, threading, warnings\n"
            "mine = lambda *args: None\n"
            "sys.excepthook = threading.excepthook = sys.unraisablehook = mine\n"
            "warnings.showwarning = mine\n"
            "from gtask.logs.hooks import install_hooks\n"
            "install_hooks()\n"
            "assert sys.excepthook is threading.excepthook is sys.unraisablehook is mine\n"
            "assert warnings.showwarning is mine\n",
        ],
        check=False,
    )
    assert done.returncode == 0
