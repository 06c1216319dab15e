from __future__ import annotations

import grp
import os
import pwd
import socket
import stat
from pathlib import Path

import pytest

from gtask.master.unixsockets import Owner, bind_unix, is_listened_to, remove_stale, user_name

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")


def leave_stale(path: Path) -> None:
    """What a process leaves that was killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_the_file_has_its_mode_from_the_start(tmp_path: Path):
    path = tmp_path / "new" / "s"
    with bind_unix(str(path), 0o640):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        assert path.stat().st_uid == os.getuid()


@needs_root
def test_it_is_given_to_its_owner(tmp_path: Path):
    user, group = pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid
    path = tmp_path / "s"
    with bind_unix(str(path), 0o660, Owner(user, group)):
        assert (path.stat().st_uid, path.stat().st_gid) == (user, group)
    remove_stale(str(path), Owner(user, group))
    assert not path.exists()
    with bind_unix(str(path), 0o660, Owner(group=group)):
        assert (path.stat().st_uid, path.stat().st_gid) == (0, group)


def test_what_was_left_is_removed_if_nobody_listens(tmp_path: Path):
    path = tmp_path / "s"
    remove_stale(str(path))  # there is none
    leave_stale(path)
    remove_stale(str(path))
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        assert is_listened_to(str(path))
        with pytest.raises(OSError, match="in use"):
            remove_stale(str(path))
    assert path.exists()


@needs_root
def test_what_another_user_has_left_is_not(tmp_path: Path):
    path = tmp_path / "s"
    leave_stale(path)
    os.chown(path, 65534, 65534)
    with pytest.raises(FileExistsError, match="exists and is a socket of user nobody"):
        remove_stale(str(path))
    assert path.exists()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str):
    path, target = tmp_path / "s", tmp_path / "t"
    if kind == "file":
        path.write_text("precious")
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)
        if kind == "link":
            leave_stale(target)
    with pytest.raises(FileExistsError, match="exists and is not a socket"):
        remove_stale(str(path))
    assert os.path.lexists(path)
    with pytest.raises(OSError, match="in use"):
        bind_unix(str(path), 0o600)
    assert os.path.lexists(path)


def test_users_have_names_or_numbers():
    assert user_name(0) == "user root"
    assert user_name(4_000_000_000) == "user 4000000000"
