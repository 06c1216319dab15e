"""`bin/test` installs nothing as root that nobody has agreed to."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from .support.spawn import ROOT

COMMAND = "sudo apt-get install -y --no-install-recommends chromium "
NOT_POSSIBLE, INSTALLS = 2, 100
PROGRAMS = {
    "dpkg-query": "exit 1",  # no package is there
    "id": "echo 0",
    "apt-get": f"exit {INSTALLS}",
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A folder for PATH, with what makes this look like a machine where everything is missing."""
    for name, script in PROGRAMS.items():
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return tmp_path


def run(programs: Path, *words: str, stdin: int = subprocess.DEVNULL, ci: str = ""):
    """Run it until it installs packages or ends otherwise."""
    return subprocess.run(
        [ROOT / "bin/test", *words],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "CI": ci},
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def test_without_a_terminal_it_tells_the_command(programs):
    done = run(programs)
    assert done.returncode == NOT_POSSIBLE
    assert COMMAND in done.stderr


def test_a_user_who_is_not_root_is_told_the_command(programs):
    (programs / "id").write_text("#!/bin/sh\necho 1000\n")
    done = run(programs, "--yes")
    assert done.returncode == NOT_POSSIBLE
    assert COMMAND in done.stderr


@pytest.mark.parametrize(("words", "ci"), [(["--yes"], ""), ([], "1")])
def test_who_has_agreed_is_not_asked(programs, words, ci):
    done = run(programs, *words, ci=ci)
    assert done.returncode == INSTALLS
    assert "bin/test: installing chromium " in done.stdout


@pytest.mark.parametrize(
    ("answer", "code"), [("y", INSTALLS), ("n", NOT_POSSIBLE), ("", NOT_POSSIBLE)]
)
def test_at_a_terminal_it_asks(programs, answer, code):
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{answer}\n".encode())
        done = run(programs, stdin=theirs)
    finally:
        os.close(theirs)
        os.close(ours)
    assert "? [y/N]" in done.stderr
    assert done.returncode == code
