"""Builds gtask. Where a C compiler is there, the modules that each task goes through are compiled."""

import os
import sys

from setuptools import setup

COMPILED = [
    "gtask/net/stream.py",
    "gtask/protocols/jsontext.py",
    "gtask/protocols/messages.py",
    "gtask/protocols/text.py",
    "gtask/protocols/tls.py",
    "gtask/protocols/tokens.py",
    "gtask/protocols/websocket.py",
    "gtask/server/acceptor.py",
    "gtask/server/boot.py",
    "gtask/server/dispatch.py",
    "gtask/server/execution.py",
    "gtask/server/gauge.py",
    "gtask/server/service.py",
    "gtask/server/turns.py",
    "gtask/tasks.py",
]
COMPILER = "mypy >=2.4, <3"
COMMANDS = {"bdist_wheel", "build", "build_ext", "develop", "editable_wheel", "install"}
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
    try:
        from mypyc.build import mypycify

        made = mypycify([*MYPY, *COMPILED], group_name="gtask.compiled")
    except (ImportError, SystemExit) as error:
        print(f"gtask runs from its sources, as mypyc cannot compile it: {error}", file=sys.stderr)
        return []
    for extension in made:
        extension.optional = True  # without a C compiler, a warning
    return made


if __name__ == "__main__":
    # pip asks for what the build wants by the command egg_info, and has it there if it can.
    setup(ext_modules=extensions(), setup_requires=[COMPILER] if "egg_info" in sys.argv else [])
