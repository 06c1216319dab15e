"""Whether gtask's hot modules run compiled or from their sources.

Where a C compiler is there, installing gtask compiles some modules with mypyc (`setup.py` names them);
Python then takes those before their sources. The sources are what runs where they were not compiled,
where GTASK_PURE is set in the environment, and in a checkout in which one was edited since.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.util import find_spec
from typing import TYPE_CHECKING

SUFFIX = EXTENSION_SUFFIXES[0]
LIBRARY = f"compiled__mypyc{SUFFIX}"  # holds all the code; the modules only refer to it
FOLDERS = ("", "net", "protocols", "server")

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**attributes):
        """Tells mypyc something; mypy_extensions, whose it is, is needed for compiling only."""
        return lambda decorated: decorated


def choose(package: str) -> None:
    """Have the sources of the package in that directory run, if the compiled modules must not."""
    folders = [os.path.join(package, folder).rstrip("/") for folder in FOLDERS]
    if os.environ.get("GTASK_PURE") or not _are_usable(package, folders):
        for folder in folders:
            sys.path_importer_cache[folder] = FileFinder(
                folder, (SourceFileLoader, SOURCE_SUFFIXES)
            )


def is_compiled() -> bool:
    """Whether the compiled modules run."""
    spec = find_spec("gtask.protocols.text")
    return spec is not None and spec.origin is not None and spec.origin.endswith(SUFFIX)


def _are_usable(package: str, folders: list[str]) -> bool:
    """They are complete and, in a checkout, newer than their sources."""
    try:
        made = os.path.getmtime(os.path.join(package, LIBRARY))
    except OSError:
        return False
    if not os.path.exists(os.path.join(package, "../setup.py")):
        return True  # installed: times tell nothing
    return all(
        os.path.getmtime(os.path.join(folder, name.removesuffix(SUFFIX) + ".py")) <= made
        for folder in folders
        for name in os.listdir(folder)
        if name.endswith(SUFFIX) and name != LIBRARY
    )
