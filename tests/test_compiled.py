"""Which modules run compiled, and when it is the sources instead."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import gtask
from gtask.compiled import MODULES, SUFFIX, group

from .support.spawn import ROOT

LIBRARY = f"{group(str(ROOT / 'gtask'))}__mypyc{SUFFIX}"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "gtask", tmp_path / "gtask")
    assert (tmp_path / "gtask" / LIBRARY).exists(), "bin/test compiles gtask"
    return tmp_path


def run(folder: Path, *arguments: str, **env: str) -> str:
    """What Python prints there, with these arguments and what is there to import."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), **env},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def compiled_in(folder: Path, **env: str) -> set[str]:
    """Of the modules that are to be compiled, those that a new process there loads so."""
    code = f"""
import importlib
for path in {MODULES}:
    name = path.replace("/", ".")
    if importlib.import_module(f"gtask.{{name}}").__file__.endswith({SUFFIX!r}):
        print(path)
"""
    return set(run(folder, "-c", code, **env).split())


def test_all_are_compiled(checkout):
    assert compiled_in(checkout) == set(MODULES)


def test_sources_on_demand(checkout):
    assert compiled_in(checkout, GTASK_PURE="1") == set()


@pytest.mark.parametrize("pure", ["", "0"])
def test_no_demand(checkout, pure):
    assert compiled_in(checkout, GTASK_PURE=pure) == set(MODULES)


def test_an_edited_source_has_all_sources_run(checkout):
    with (checkout / "gtask/protocols/text.py").open("a") as file:
        file.write("# edited\n")
    assert compiled_in(checkout) == set()


def test_times_tell_nothing(checkout):
    """A copy of a checkout, as one made for a container, may have any."""
    for age in (-10, 10):
        then = time.time() + age
        os.utime(checkout / "gtask/protocols/text.py", (then, then))
        assert compiled_in(checkout) == set(MODULES)


def test_without_sources_there_is_nothing_else(checkout):
    (checkout / "gtask/protocols/text.py").unlink()
    assert compiled_in(checkout) == set(MODULES)


def test_a_build_that_was_cut_off_has_the_sources_run(checkout):
    (checkout / "gtask" / LIBRARY).unlink()
    assert compiled_in(checkout) == set()


def test_a_part_of_them_is_not_used(checkout):
    (checkout / f"gtask/binding{SUFFIX}").unlink()
    assert compiled_in(checkout) == set()


def test_one_that_is_not_named_any_more_has_the_sources_run(checkout):
    old = checkout / f"gtask/server/callbacks{SUFFIX}"
    shutil.copy(checkout / f"gtask/server/stats{SUFFIX}", old)
    assert compiled_in(checkout) == set()


def test_a_zip_file_holds_sources(checkout):
    shutil.make_archive(str(checkout / "packed"), "zip", checkout, "gtask")
    shutil.rmtree(checkout / "gtask")
    code = "from gtask import task; from gtask.protocols import text; print(text.__file__)"
    assert "packed.zip" in run(checkout, "-c", code, PYTHONPATH=str(checkout / "packed.zip"))


@pytest.mark.parametrize(
    ("program", "module"),
    [("worker", "gtask"), ("call", "gtask.programs.call"), ("ping", "gtask.programs.ping")],
)
@pytest.mark.parametrize(("pure", "how"), [("", "compiled"), ("1", "from sources")])
def test_the_programs_tell(checkout, program, module, pure, how):
    told = run(checkout, "-m", module, "--version", GTASK_PURE=pure)
    python = sys.version.split()[0]
    assert told == f"gtask-{program} {gtask.__version__} ({how}, Python {python})\n"
