"""Names that were taken before everything was patched: bound anew, and told of."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import taker
from gtask.patches import patch_all
from gtask.patches.early import rebind_early_names
import logging
logging.basicConfig(stream=sys.stdout, format="%(message)s")
{before}
patch_all()
print(rebind_early_names())
import time, socket, ssl, threading
assert taker.nap is time.sleep and taker.socket is socket.socket and taker.SSLContext is ssl.SSLContext
assert taker.pause is time.sleep and taker.Lock is threading.Lock
context = taker.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version = ssl.TLSVersion.TLSv1_2
"""
TAKER = """
from socket import socket
from ssl import SSLContext
from threading import Lock
from time import sleep as nap
import time
pause = time.sleep
own = len
"""


def run(folder, before: str) -> str:
    (folder / "taker.py").write_text(TAKER)
    program = SCRIPT.format(folder=str(folder), before=before)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_are_bound_anew_and_told_of(tmp_path):
    told = run(tmp_path, "")
    assert "sleep of time" in told
    assert "SSLContext of ssl" in told
    assert "from gtask.patches import patch_all; patch_all()" in told
    assert told.splitlines()[-1].startswith("['taker: socket of socket")


def test_many_are_not_all_named(tmp_path):
    more = (
        "import types\nfor n in range(9): m = types.ModuleType(f'm{n}'); m.__file__ = '/x/m.py'; "
        + ("m.s = taker.nap; sys.modules[m.__name__] = m")
    )
    assert " ...)" in run(tmp_path, more)
