from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

from gtask.stacks import Stacks


def die(catch: Callable[[], None]) -> None:
    """In a child: fail in C code, once its stacks are caught."""
    pid = os.fork()
    if pid == 0:
        catch()
        ctypes.string_at(0)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGSEGV


def test_each_process_has_a_place_of_its_own():
    stacks = Stacks(["A", "B"])
    for service, row in (("A", 0), ("A", 7), ("B", 7)):
        die(lambda service=service, row=row: stacks.catch(service, row))
    die(stacks.catch_mold)
    assert stacks.take("B", 0) == ""
    for text in (stacks.take("A", 0), stacks.take("A", 7), stacks.take("B", 7), stacks.take_mold()):
        assert text.startswith("Fatal Python error: Segmentation fault")
        assert text.count("Fatal") == 1
        assert "in die" in text


def test_a_place_is_used_again():
    stacks = Stacks(["A"])
    for _ in range(2):
        die(lambda: stacks.catch("A", 3))
        assert stacks.take("A", 3).count("Fatal") == 1
        assert stacks.take("A", 3) == ""


def test_without_such_memory_they_go_to_standard_error(monkeypatch, capfd):
    def refuse(_: str) -> int:
        raise OSError("no")

    monkeypatch.setattr(os, "memfd_create", refuse)
    stacks = Stacks(["A"])
    die(lambda: stacks.catch("A", 0))
    assert "Segmentation fault" in capfd.readouterr().err
    assert stacks.take("A", 0) == ""
    stacks.close()
