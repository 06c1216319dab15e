"""What is built of a checkout, with a C compiler and without one, works where it is installed."""

from __future__ import annotations

import configparser
import shutil
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import gtask
from gtask.compiled import MODULES, SUFFIX

from .support.packaging import (
    Built,
    EmptyEnvironment,
    build,
    build_as_pip_does,
    copy_checkout,
    files_of,
    run,
    unpack,
)
from .support.spawn import ROOT

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = tasks
"""
TASKS = """
from gtask import task

@task
def double(number):
    return 2 * number
"""
IN_A_HURRY = 'exec gcc "$@" -O0'
# Compiles nothing, and fails with the last of the modules.
CUT_OFF = f"""
while [ "$1" != -o ]; do shift; done
touch "$2"
case $2 in *{MODULES[-1]}{SUFFIX}) exit 1;; esac
"""


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def write_compiler(folder: Path, script: str) -> str:
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    copy_checkout(folder)
    return folder


@pytest.fixture(scope="module")
def built(checkout: Path) -> Built:
    """Compiled, in a hurry: what the code does is tested by all the others."""
    before = files_of(checkout)
    compiler = write_compiler(checkout.parent, IN_A_HURRY)
    made = build(checkout, checkout.with_name("dist"), CC=compiler, GTASK_PURE="0")
    assert files_of(checkout) == before, "the build leaves something behind"
    return made


@pytest.fixture(scope="module")
def source(built: Built) -> Path:
    """The source distribution, unpacked."""
    return unpack(built.wheel.parent)


@pytest.fixture
def environment(tmp_path: Path) -> EmptyEnvironment:
    needed = setup_cfg()["options"]["install_requires"].split("\n")
    return EmptyEnvironment(tmp_path / "environment", [line for line in needed if line])


def check_it_works(environment: EmptyEnvironment, wheel: Path, how: str) -> None:
    """When it is installed, the programs are there, say how they run, and load tasks."""
    folder = environment.folder
    environment.install(wheel)
    (folder / "worker.ini").write_text(INI)
    (folder / "tasks.py").write_text(TASKS)
    version = environment.program("gtask-worker", "--version", cwd=folder)
    assert version.startswith(f"gtask-worker {gtask.__version__} ({how}, ")
    environment.program("gtask-worker", "-c", "worker.ini", "check", cwd=folder)


def check_is_pure(built: Built, reason: str) -> None:
    """The wheel says so, it holds nothing else, and the reason has been told."""
    line = f"gtask is not compiled and will run from its sources: {reason}"
    assert built.said.count(line) == 1
    assert built.wheel.name == f"gtask-{gtask.__version__}-py3-none-any.whl"
    with zipfile.ZipFile(built.wheel) as packed:
        assert not [name for name in packed.namelist() if name.endswith(".so")]


def check_nothing_is_deprecated(said: str) -> None:
    assert "deprecat" not in said.lower()


def test_tests_and_builds_have_the_same_compiler():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    for_tests = setup_cfg()["options.extras_require"]["test"].splitlines()
    assert set(wanted) <= set(for_tests)
    assert [line for line in for_tests if line.startswith("mypy")] == [wanted[1]]


def test_the_source_distribution_is_the_whole_checkout(checkout, source):
    there, ours = files_of(source), files_of(checkout)
    assert there.keys() == ours.keys() | {"PKG-INFO"}
    del ours["setup.cfg"]  # setuptools writes it anew
    assert {name: there[name] for name in ours} == ours


def test_a_wheel_with_compiled_modules_is_for_this_platform(built, environment):
    check_nothing_is_deprecated(built.said)
    assert "not compiled" not in built.said
    assert "none-any" not in built.wheel.name
    check_it_works(environment, built.wheel, "compiled")


@pytest.mark.parametrize("script", ["", CUT_OFF], ids=["missing", "fails"])
def test_a_wheel_made_without_a_compiler_is_for_every_platform(
    source, environment, tmp_path, script
):
    before = files_of(source)
    compiler = write_compiler(tmp_path, script) if script else "/there/is/none"
    built = build_as_pip_does(source, tmp_path / "dist", CC=compiler)
    assert files_of(source) == before, "pip leaves something behind"
    check_nothing_is_deprecated(built.said)
    check_is_pure(built, "CompileError" if not script else "LinkError")
    check_it_works(environment, built.wheel, "from sources")


def test_a_wheel_of_sources_on_demand(source, environment, tmp_path):
    built = build_as_pip_does(source, tmp_path / "dist", GTASK_PURE="1")
    check_is_pure(built, "GTASK_PURE is set")
    check_it_works(environment, built.wheel, "from sources")


def test_what_cannot_be_compiled_any_more_goes(source, tmp_path):
    """A checkout keeps nothing that was compiled before."""
    checkout = tmp_path / "checkout"
    shutil.copytree(source, checkout)
    (checkout / f"gtask/binding{SUFFIX}").touch()
    compiler = write_compiler(tmp_path, CUT_OFF)
    said = run(sys.executable, "setup.py", "build_ext", "--inplace", cwd=checkout, CC=compiler)
    check_nothing_is_deprecated(said)
    assert files_of(checkout).keys() == files_of(source).keys()
