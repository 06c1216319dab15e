from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gtask.master.ownfiles import OwnFile


def test_ones_own_file_is_removed(tmp_path: Path):
    path = tmp_path / "f"
    path.write_text("")
    own = OwnFile(str(path))
    own.remove()
    assert not path.exists()
    own.remove()  # again, and no error


@pytest.mark.parametrize("how", ["another", "link", "directory"])
def test_what_has_taken_its_place_stays(tmp_path: Path, how: str):
    path, elsewhere = tmp_path / "s", tmp_path / "elsewhere"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))  # while it is open, its number is nobody else's
        own = OwnFile(str(path))
        path.rename(elsewhere)
        if how == "another":
            path.write_text("another's")
        elif how == "link":
            path.symlink_to(elsewhere)
        else:
            path.mkdir()
        own.remove()
    assert path.exists()
    assert elsewhere.exists()
