from __future__ import annotations

import os

import pytest

from gtask.master.workdir import WorkingDirectory


@pytest.fixture
def link(tmp_path, monkeypatch):
    """A link, and we are where it leads to."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "link"
    link.symlink_to("one")
    monkeypatch.chdir(link)
    return link


def test_it_follows_its_name(link, tmp_path):
    directory = WorkingDirectory({"PWD": str(link)})
    directory.follow()
    assert os.getcwd() == str(tmp_path / "one")
    link.unlink()
    link.symlink_to("two")
    directory.follow()
    assert os.getcwd() == str(tmp_path / "two")
    link.unlink()
    with pytest.raises(FileNotFoundError):
        directory.follow()
    assert os.getcwd() == str(tmp_path / "two")


@pytest.mark.parametrize("pwd", [None, "", ".", "/", "/no/such", "\0"])
def test_a_name_of_something_else_is_none(link, tmp_path, pwd):
    directory = WorkingDirectory({} if pwd is None else {"PWD": pwd})
    link.unlink()
    link.symlink_to("two")
    directory.follow()
    assert os.getcwd() == str(tmp_path / "one")


def test_one_that_has_been_removed_is_told(link, tmp_path):
    (tmp_path / "one").rmdir()
    with pytest.raises(FileNotFoundError, match="has been removed: 'working directory'"):
        WorkingDirectory({"PWD": str(link)})
