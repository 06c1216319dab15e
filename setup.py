"""Builds gtask: compiled where that can be done, otherwise as its sources alone.

setup.cfg says what gtask is. Here is only what setuptools has no setting for: the modules that
gtask/compiled.py names are compiled by mypyc, a build that cannot do so goes on without, and none
leaves anything in the source tree, unless it is one that compiles in place.
"""

import os
import runpy
import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist

COMPILED = runpy.run_path("gtask/compiled.py")
# The types of other packages are not looked at, as they are not there in all environments.
MYPY = [
    "--config-file=",
    f"--cache-dir={os.devnull}",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
]


class BuildCompiled(build_ext):
    """Compiles the modules; without them, the distribution becomes one of pure Python."""

    def run(self):
        if self.inplace:
            remove_compiled(Path("gtask"))
        if COMPILED["are_sources_asked_for"]():
            return self.become_pure("GTASK_PURE is set")
        try:
            self.compile()
        except (Exception, SystemExit) as error:  # mypyc ends by the latter
            self.become_pure(f"{type(error).__name__}: {error}")

    def compile(self):
        """Translate the modules to C, and that to what Python can load; all of them, or raise."""
        from mypyc.build import mypycify

        inplace = self.inplace
        self.distribution.ext_modules = mypycify(
            [*MYPY, *(f"gtask/{name}.py" for name in COMPILED["MODULES"])],
            target_dir=self.build_temp,
            group_name=f"gtask.{COMPILED['group']('gtask')}",
        )
        self.reinitialize_command(self)  # the modules are known only now
        self.inplace = inplace
        self.ensure_finalized()
        super().run()

    def become_pure(self, reason):
        """Have setuptools go on as if there had never been anything to compile."""
        line = f"gtask is not compiled and will run from its sources: {reason}"
        print(textwrap.shorten(line, 160), file=sys.stderr)  # a compiler's command is long
        remove_compiled(Path(self.build_lib, "gtask"))
        self.extensions = self.distribution.ext_modules = []


class BuildWheel(bdist_wheel):
    """Says that a wheel is for this platform only after its modules have been compiled."""

    def run(self):
        self.run_command("build")
        self.skip_build = True
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()


class BuildSource(sdist):
    """Leaves out what setuptools has noted down in the temporary directory."""

    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, [name for name in files if not os.path.isabs(name)])


def remove_compiled(package):
    """Remove the compiled modules, of which some may be of modules that are not compiled now."""
    for old in package.rglob(f"*{COMPILED['SUFFIX']}"):
        old.unlink()


with TemporaryDirectory(prefix="gtask-build-") as folder:
    setup(
        # Stands for the modules, which are known when `build_ext` has run.
        ext_modules=[Extension("gtask.compiled", sources=[])],
        cmdclass={"build_ext": BuildCompiled, "bdist_wheel": BuildWheel, "sdist": BuildSource},
        options={"build": {"build_base": folder}, "egg_info": {"egg_base": folder}},
    )
