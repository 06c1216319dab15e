"""What importing gtask does, and does not, bring along."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gtask


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import gtask", "import gtask.config", "import gtask.master.master", "import gtask.programs.worker"],
)  # fmt: skip
def test_the_master_does_not_load_gevent(statement):
    assert not {"gevent", "greenlet", "ujson", "geventwebsocket"} & loaded_by(statement)


def test_every_public_name_is_there():
    for name in gtask.__all__:
        assert getattr(gtask, name) is not None
    assert set(gtask.__all__) <= set(dir(gtask))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(gtask.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (f".{statement.module}", alias.name)
        for statement in block.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == {(home, name) for name, home in gtask._HOMES.items()}


def test_other_names_are_not():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = gtask.nothing
