"""Standard streams that are closed, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys
from gtask.streams import open_standard_streams
before = [getattr(sys, name) for name in ("stdin", "stdout", "stderr")]
open_standard_streams()
with open(sys.argv[1], "w") as file:
    for fd, old in enumerate(before):
        new = getattr(sys, ("stdin", "stdout", "stderr")[fd])
        print(os.readlink(f"/proc/self/fd/{fd}") == "/dev/null", new is old, file=file)
    assert sys.stdin.read() == ""
    print("text")
    sys.stderr.write("text")
    print(file.fileno() > 2, os.get_inheritable(0), file=file)
"""


@pytest.mark.parametrize("closed", ["", "<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"])
def test_they_are_opened(tmp_path, closed: str):
    line = f'exec {sys.executable} -c "$0" {tmp_path}/seen {closed}'
    subprocess.run(["bash", "-c", line, PROGRAM], input=b"", capture_output=True, check=True)
    *streams, rest = (tmp_path / "seen").read_text().splitlines()
    for stream, sign in zip(streams, (" <&-", " >&-", " 2>&-"), strict=True):
        is_closed = sign in f" {closed}"
        assert stream == f"{is_closed} {not is_closed}"
    assert rest == "True True"
