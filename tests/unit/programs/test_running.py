"""Talking to a master: what its answers, and its silence, end in."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import pytest

from gtask.config import Settings
from gtask.programs import running
from gtask.programs.outcome import Failure

SETTINGS = Settings(file="f.ini", control="c.sock", pid_file="f.pid")
STATUS = {
    "ok": True,
    "file": "f.ini",
    "state": "running",
    "pid": 1,
    "uptime_seconds": 1,
    "generation": 1,
    "is_daemon": True,
    "services": [],
}


@pytest.fixture
def master(monkeypatch):
    """Sets what the master answers to each command; an exception is raised."""

    def answers(**by_command) -> None:
        def connect(path, timeout):
            assert path == "c.sock"
            if not by_command:
                raise FileNotFoundError(path)
            return contextlib.nullcontext()

        def ask(connection, command):
            answer = by_command.get(command, FileNotFoundError(command))
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(running, "connect", connect)
        monkeypatch.setattr(running, "ask", ask)
        monkeypatch.setattr(running, "peer_pid", lambda connection: by_command.get("pid", 0))

    answers()
    return answers


@pytest.fixture
def ended():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.mark.parametrize("command", ["stop", "reload"])
def test_none_runs(master, command):
    with pytest.raises(running.NotRunning) as failure:
        getattr(running, command)(SETTINGS)
    assert (failure.value.code, failure.value.lines) == (3, ("f.ini: not running",))


@pytest.mark.parametrize("show", [running.status, running.connections])
def test_none_runs_that_could_be_shown(master, show):
    with pytest.raises(running.NotRunning):
        show(SETTINGS, True)


def test_no_answer_is_a_failure(master):
    master(status=TimeoutError("timed out"))
    with pytest.raises(Failure, match=r"no answer on control socket c\.sock: timed out") as failure:
        running.status(SETTINGS, False)
    assert failure.value.code == 1


def test_where_it_listens_must_be_known():
    with pytest.raises(Failure, match=r"f\.ini \[gtask\] control: is not set"):
        running.status(Settings(file="f.ini"), False)


def test_status_for_people_and_for_programs(master, capsys):
    master(status=STATUS)
    assert running.status(SETTINGS, False) == 0
    assert capsys.readouterr().out.startswith("gtask-worker f.ini: running, process 1")
    assert running.status(SETTINGS, True) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {key: value for key, value in STATUS.items() if key != "ok"}


def test_connections(master, capsys):
    master(connections={"ok": True, "connections": [], "silent": []})
    assert running.connections(SETTINGS, False) == 0
    assert running.connections(SETTINGS, True) == 0
    assert capsys.readouterr().out.splitlines()[0] == "0 connections"


def test_watching_ends_when_the_master_has_ended(master, capsys, monkeypatch):
    master(status=STATUS)
    monkeypatch.setattr(running.time, "sleep", lambda seconds: master())
    with pytest.raises(running.NotRunning):
        running.watch(SETTINGS)
    shown = capsys.readouterr().out
    assert shown.startswith("\x1b[Hgtask-worker f.ini: running")
    assert shown.endswith("\x1b[K\n\x1b[J")


def test_a_reload_that_is_refused(master, capsys):
    master(reload={"ok": False, "message": "no", "problems": ["one", "two"]})
    with pytest.raises(Failure) as failure:
        running.reload(SETTINGS)
    assert (failure.value.code, failure.value.lines) == (1, ("no", "one", "two"))
    master(reload={"ok": True, "message": "reloaded"})
    assert running.reload(SETTINGS) == 0
    assert capsys.readouterr().out == "reloaded\n"


def test_stopping_waits_for_the_process(master, ended, capsys, monkeypatch):
    master(stop={"ok": True, "pid": 7}, pid=ended)
    monkeypatch.setattr(running, "_await_silence", lambda settings: None)
    assert running.stop(SETTINGS) == 0
    assert capsys.readouterr().out == "stopped\n"


def test_tasks_that_were_cut_off_are_a_failure_of_its_own(master, ended, monkeypatch):
    master(stop={"ok": False, "pid": 7}, pid=ended)
    monkeypatch.setattr(running, "_await_silence", lambda settings: None)
    with pytest.raises(running.CutOff) as failure:
        running.stop(SETTINGS)
    assert failure.value.code == 1


def test_without_a_control_socket_the_pid_file_will_do(master, monkeypatch, capsys):
    process = subprocess.Popen(["sleep", "100"])
    monkeypatch.setattr(running, "running_pid", lambda path: process.pid)
    monkeypatch.setattr(running, "is_master", lambda pid: pid == process.pid)
    assert running.stop(SETTINGS) == 0
    assert process.wait() == -15


def test_a_stranger_is_not_stopped(master, monkeypatch):
    """Whoever holds the lock of the pid file, or had its number before."""
    with subprocess.Popen(["sleep", "100"]) as stranger:
        pids = iter([stranger.pid, 0])
        monkeypatch.setattr(running, "running_pid", lambda path: stranger.pid)
        with pytest.raises(running.NotRunning):
            running.stop(SETTINGS)
        monkeypatch.setattr(running, "is_master", lambda pid: True)
        monkeypatch.setattr(running, "running_pid", lambda path: next(pids))
        with pytest.raises(running.NotRunning):
            running.stop(SETTINGS)
        assert stranger.poll() is None
        stranger.kill()


def test_whether_a_daemon_runs(master):
    assert not running.is_daemon(SETTINGS)
    assert not running.is_daemon(Settings())
    master(status=STATUS)
    assert running.is_daemon(SETTINGS)
