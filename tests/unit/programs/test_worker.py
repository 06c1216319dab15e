"""`gtask-worker`: its command line, and how its commands end."""

from __future__ import annotations

import pytest

from gtask.programs import worker
from gtask.programs.outcome import Failure

GOOD = "[gtask]\ncontrol = c.sock\n[worker:A]\nlisten = text://127.0.0.1:0\ntasks = t\n"


@pytest.fixture
def run(tmp_path):
    """Runs a command on a file with some text; returns the exit code."""

    def main(text: str, *words: str) -> int:
        (tmp_path / "f.ini").write_text(text)
        return worker.main(["-c", str(tmp_path / "f.ini"), *words])

    return main


def test_start_is_the_default():
    options = worker._parser().parse_args(["-c", "f.ini"])
    assert (options.command, options.daemon, options.json, options.watch) == ("start",) + (
        False,
    ) * 3


@pytest.mark.parametrize("words", [[], ["-c", "f", "begin"], ["-c", "f", "start", "stop"]])
def test_wrong_usage(words):
    with pytest.raises(SystemExit) as ended:
        worker.main(words)
    assert ended.value.code == 2


def test_the_help_names_all_commands(capsys):
    with pytest.raises(SystemExit):
        worker.main(["--help"])
    shown = capsys.readouterr().out
    assert all(f"  {command} " in shown for command in worker.COMMANDS)


@pytest.mark.parametrize("command", ["start", "restart", "reload", "check"])
def test_a_broken_file_is_told_as_it_is(run, command, tmp_path, capsys):
    assert run("words\n", command) == 78
    told = capsys.readouterr().err.splitlines()
    assert told[0] == f"{tmp_path}/f.ini: a line before the first [section] (line 1: words)"


@pytest.mark.parametrize("command", ["stop", "status", "connections"])
def test_a_broken_file_may_have_a_master(run, command, tmp_path, monkeypatch):
    def ask(path, *_):
        assert path == "c.sock"
        raise FileNotFoundError

    monkeypatch.setattr(worker.running, "ask", ask)
    assert run(GOOD + "cout = 1\n", command) == 3


@pytest.mark.parametrize(
    ("error", "code"), [(Failure(1, "no"), 1), (BrokenPipeError(), 0), (KeyboardInterrupt(), 130)]
)
def test_how_a_command_ends(run, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(worker.running, "status", fail)
    monkeypatch.setattr(worker, "stop_printing", lambda: 0)
    assert run(GOOD, "status") == code


@pytest.fixture
def started(monkeypatch):
    """What is started, without starting it."""
    calls = []
    monkeypatch.setattr(worker, "_start", lambda settings, is_daemon: calls.append(is_daemon) or 0)
    monkeypatch.setattr(worker.running, "is_daemon", lambda settings: False)
    return calls


def test_a_restart_of_what_does_not_run_is_a_start(run, started, capsys, tmp_path):
    assert run(GOOD, "restart") == 0
    assert started == [False]
    assert capsys.readouterr().err == f"gtask-worker: {tmp_path}/f.ini: not running\n"


def test_a_restart_goes_on_when_tasks_were_cut_off(run, started, capsys, monkeypatch):
    def stop(settings):
        raise worker.running.CutOff

    monkeypatch.setattr(worker.running, "stop", stop)
    assert run(GOOD, "restart", "-d") == 0
    assert started == [True]
    assert "starting all the same" in capsys.readouterr().err


def test_a_restart_of_what_does_not_answer_is_none(run, started, monkeypatch):
    def stop(settings):
        raise Failure(1, "no answer")

    monkeypatch.setattr(worker.running, "stop", stop)
    assert run(GOOD, "restart") == 1
    assert started == []
