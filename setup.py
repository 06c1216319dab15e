"""Builds gtask. Where a C compiler is there, the modules that each task goes through are compiled."""

import os
import runpy
import sys
from pathlib import Path

from setuptools import setup

COMPILER = "mypy >=2.4, <3"
IN_PLACE = {"build_ext", "develop", "editable_wheel"}
COMMANDS = IN_PLACE | {"bdist_wheel", "build", "install"}
# The types of other packages are not looked at, as they are not there in all environments.
MYPY = [
    "--config-file=",
    "--no-site-packages",
    "--ignore-missing-imports",
    "--follow-imports=silent",
]


def extensions():
    """The extension modules; none where they cannot be made, as the sources do as well."""
    if os.environ.get("GTASK_PURE") or not COMMANDS.intersection(sys.argv):
        return []
    compiled = runpy.run_path("gtask/compiled.py")
    if IN_PLACE.intersection(sys.argv):
        for old in Path("gtask").rglob(f"*{compiled['SUFFIX']}"):
            old.unlink()  # it may be of a module that is not compiled any more
    try:
        from mypyc.build import mypycify

        paths = [f"gtask/{name}.py" for name in compiled["MODULES"]]
        made = mypycify([*MYPY, *paths], group_name="gtask.compiled")
    except (ImportError, SystemExit) as error:
        print(f"gtask runs from its sources, as mypyc cannot compile it: {error}", file=sys.stderr)
        return []
    for extension in made:
        extension.optional = True  # without a C compiler, a warning
    return made


if __name__ == "__main__":
    # pip asks for what the build wants by the command egg_info, and has it there if it can.
    setup(ext_modules=extensions(), setup_requires=[COMPILER] if "egg_info" in sys.argv else [])
