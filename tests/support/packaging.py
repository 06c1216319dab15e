"""Building gtask outside this checkout, and empty environments to install it into."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

from .spawn import ROOT

PYTHON = (sys.executable, "-m")


def run(*words: object, cwd: Path, **env: str) -> str:
    """What the command printed on both of its streams; it has to succeed."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def copy_checkout(folder: Path) -> None:
    """What git would commit of this checkout, or of the source distribution that this is."""
    index = folder.with_suffix(".git")
    git = ("git", f"--git-dir={index}", f"--work-tree={ROOT}")
    run("git", "init", "--quiet", "--bare", index, cwd=ROOT)
    for name in run(*git, "ls-files", "--others", "--exclude-standard", cwd=ROOT).splitlines():
        copy = folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
        copy.chmod((ROOT / name).stat().st_mode)


@dataclass
class Built:
    """A wheel, and what was said while it was made."""

    wheel: Path
    said: str


def build(checkout: Path, folder: Path, **env: str) -> Built:
    """Build a source distribution, and a wheel of that, as for a release."""
    said = run(*PYTHON, "build", "--no-isolation", "--outdir", folder, cwd=checkout, **env)
    return Built(only(folder, "*.whl"), said)


def build_as_pip_does(source: Path, folder: Path, **env: str) -> Built:
    """Build the wheel that `pip install .` makes and installs."""
    pip = (*PYTHON, "pip", "wheel", "--verbose", "--no-cache-dir", "--no-deps")
    said = run(*pip, "--no-build-isolation", "--wheel-dir", folder, ".", cwd=source, **env)
    return Built(only(folder, "*.whl"), said)


def unpack(folder: Path) -> Path:
    """Unpack the source distribution in a folder."""
    archive = only(folder, "*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


def only(folder: Path, pattern: str) -> Path:
    """The file in a folder that a pattern matches."""
    (path,) = folder.glob(pattern)
    return path


class EmptyEnvironment:
    """A virtual environment in which is what gtask needs to run, and nothing else."""

    def __init__(self, folder: Path, requirements: list[str]) -> None:
        self.folder = folder
        venv.create(folder)
        self.packages = only(folder, "lib/python*/site-packages")
        for requirement in requirements:
            self._link(Requirement(requirement))

    def _link(self, requirement: Requirement) -> None:
        """Link a distribution that is installed here, and what it needs."""
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            return
        one = distribution(requirement.name)
        for name in {file.parts[0] for file in one.files or ()} - {"..", "__pycache__"}:
            link = self.packages / name
            if not link.is_symlink():
                link.symlink_to(one.locate_file(name))
        for needed in one.requires or ():
            self._link(Requirement(needed))

    def install(self, wheel: Path) -> None:
        """Have pip install a wheel; nothing is fetched, as what it needs is there."""
        pip = (*PYTHON, "pip", "--python", self.folder / "bin/python")
        run(*pip, "install", "--no-index", wheel, cwd=self.folder)

    def program(self, name: str, *words: str, cwd: Path) -> str:
        """Run a program that has been installed there; returns what it printed."""
        return run(self.folder / "bin" / name, *words, cwd=cwd)
