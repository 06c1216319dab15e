"""The progress of a task on standard error."""

from __future__ import annotations

import io
import os

import pytest

from gtask.programs.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def on_terminal(monkeypatch):
    """Makes a bar on a terminal of 60 columns; gives it, and what the terminal got."""

    def make() -> tuple[ProgressBar, Terminal]:
        terminal = Terminal()
        monkeypatch.setattr("sys.stderr", terminal)
        monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((60, 24)))
        return ProgressBar("f"), terminal

    return make


def test_a_line_for_each_report(capsys):
    bar = ProgressBar("f")
    bar.show(1, 4, "")
    bar.show(2, None, "half")
    bar.clear()
    assert capsys.readouterr().err == "f: 1/4\nf: 2 half\n"


def test_reports_give_no_orders_to_the_terminal(capsys, on_terminal):
    ProgressBar("f").show("1\n", "\x1b[2J", "a\x9bb\r")
    assert capsys.readouterr().err == "f: 1\\n/\\x1b[2J a\\x9bb\\r\n"
    bar, terminal = on_terminal()
    bar.show(1, None, "\x1b]0;title\x07")
    assert "\x1b]" not in terminal.getvalue()


def test_a_bar_on_a_terminal(on_terminal):
    bar, terminal = on_terminal()
    bar.show(1, 2, "half")
    assert terminal.getvalue() == f"\r\x1b[Kf [{'#' * 15}{'.' * 15}] 1/2 half"
    bar.clear()
    bar.clear()
    assert terminal.getvalue().endswith("half\r\x1b[K")


@pytest.mark.parametrize(
    ("done", "total", "shown"),
    [
        (3, 2, f"f [{'#' * 30}] 3/2 "),
        (-1, 2, f"f [{'.' * 30}] -1/2 "),
        (1, 0, "f 1 "),
        ("x", 2, "f x/2 "),
        (1, ["y"], "f 1/['y'] "),
    ],
)
def test_reports_are_of_any_kind(on_terminal, done, total, shown):
    bar, terminal = on_terminal()
    bar.show(done, total, None)
    assert terminal.getvalue() == f"\r\x1b[K{shown}"


def test_a_line_is_cut_to_the_terminal(on_terminal):
    bar, terminal = on_terminal()
    bar.show(1, None, "x" * 100)
    assert len(terminal.getvalue()) == len("\r\x1b[K") + 59
