"""What a process settles between its fork and its life as a worker."""

from __future__ import annotations

import gc
import grp
import os
import pwd
import signal
import socket

import pytest

from gtask.config import make_service
from gtask.errors import ConfigError
from gtask.generation import Generation
from gtask.server import child

NOBODY = pwd.getpwnam("nobody")


@pytest.fixture
def done(monkeypatch):
    """What has been asked of the system, in order, without doing it."""
    calls: list[tuple] = []

    def record(owner, name: str) -> None:
        monkeypatch.setattr(owner, name, lambda *given: calls.append((name, *given)))

    for name in ("setgroups", "setgid", "setuid"):
        record(os, name)
    for name in ("die_with", "open_own_proc", "set_title"):
        record(child, name)
    record(child.native, "signal")
    record(gc, "enable")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return calls


@pytest.fixture(autouse=True)
def environment(monkeypatch) -> dict[str, str]:
    """In place of the process's own."""
    made: dict[str, str] = {}
    monkeypatch.setattr(child.os, "environ", made)
    return made


def generation(**listeners) -> Generation:
    return Generation(
        1, None, {name: [one] for name, one in listeners.items()}, {}, None, None, master=42
    )


def test_it_waits_until_its_parent_has_ended(done, monkeypatch):
    parents = iter([7, 7, 42])
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    child.become_child_of_master(generation(), 7)
    assert next(parents, None) is None
    assert done == [("die_with", 42)]


def test_it_keeps_the_listener_of_its_service_only(done):
    with socket.socket() as own, socket.socket() as other:
        service = make_service("A", "text://h:1")
        child.become_worker_of(service, generation(A=own, B=other), "title")
        assert own.fileno() >= 0
        assert other.fileno() == -1
    assert done == [("signal", signal.SIGINT, signal.SIG_DFL), ("set_title", "title"), ("enable",)]


def test_it_is_tied_to_the_master_again_after_the_user_has_changed(done):
    child.take_user("nobody", "", 42)
    assert done[-3:] == [("setuid", NOBODY.pw_uid), ("die_with", 42), ("open_own_proc",)]


def test_without_a_user_nothing_changes(done):
    child.take_user("", "", 42)
    assert done == []


def test_a_user_has_its_own_groups_and_home(done, environment):
    child.drop_privileges("nobody", "")
    groups = os.getgrouplist("nobody", NOBODY.pw_gid)
    assert done == [("setgroups", groups), ("setgid", NOBODY.pw_gid), ("setuid", NOBODY.pw_uid)]
    own = {"HOME": NOBODY.pw_dir, "USER": "nobody", "LOGNAME": "nobody"}
    assert environment.items() >= own.items()


def test_a_group_alone_leaves_the_user(done, environment):
    gid = grp.getgrnam("daemon").gr_gid
    child.drop_privileges("", "daemon")
    assert done == [("setgroups", [gid]), ("setgid", gid)]
    assert "USER" not in environment


def test_who_is_not_root_keeps_its_further_groups(done, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    child.drop_privileges("nobody", "daemon")
    assert [call[0] for call in done] == ["setgid", "setuid"]


@pytest.mark.parametrize(
    ("user", "group"), [("nobody-of-that-name", ""), ("", "none-of-that-name")]
)
def test_whom_nobody_knows_nobody_becomes(done, user, group):
    with pytest.raises(ConfigError, match=f"cannot become user '{user}', group '{group}'"):
        child.drop_privileges(user, group)
    assert done == []


def test_what_the_kernel_does_not_permit_is_told(done, monkeypatch):
    def refuse(uid):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "setuid", refuse)
    with pytest.raises(ConfigError, match="Operation not permitted"):
        child.drop_privileges("nobody", "")
