"""Whether gtask's hot modules run compiled or from their sources.

Where a C compiler is there, installing gtask compiles the modules named here with mypyc; Python
then takes those before their sources. The sources are what runs where they were not compiled,
where GTASK_PURE is set in the environment, and in a checkout in which one was edited since.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.util import find_spec
from typing import TYPE_CHECKING

MODULES = (
    "binding",
    "net/calling",
    "net/connection",
    "net/connector",
    "net/poller",
    "net/stream",
    "protocols/jsontext",
    "protocols/messages",
    "protocols/text",
    "protocols/tls",
    "protocols/websocket",
    "server/acceptor",
    "server/boot",
    "server/dispatch",
    "server/engine",
    "server/fairness",
    "server/gate",
    "server/limits",
    "server/pace",
    "server/ready",
    "server/service",
    "server/stats",
    "server/task_greenlet",
    "server/turns",
)
FOLDERS = {os.path.dirname(name) for name in MODULES}
SUFFIX = EXTENSION_SUFFIXES[0]
LIBRARY = f"compiled__mypyc{SUFFIX}"  # holds all the code; the modules only refer to it

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr as mypyc_attr
else:

    def mypyc_attr(**attributes):
        """Tells mypyc something; mypy_extensions, whose it is, is needed for compiling only."""
        return lambda decorated: decorated


def choose(package: str) -> None:
    """Have the sources of the package in that directory run, if the compiled modules must not."""
    if not os.path.isdir(package):
        return  # in a zip file, which holds sources only
    if os.environ.get("GTASK_PURE") or not _are_usable(package):
        for name in FOLDERS:
            folder = os.path.join(package, name).rstrip("/")
            finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
            sys.path_importer_cache[folder] = finder


def is_compiled() -> bool:
    """Whether the compiled modules run."""
    spec = find_spec("gtask.protocols.text")
    return spec is not None and spec.origin is not None and spec.origin.endswith(SUFFIX)


def how() -> str:
    """What the programs and the benchmarks tell of it."""
    return "compiled" if is_compiled() else "from sources"


def _are_usable(package: str) -> bool:
    """They are just these and, in a checkout, newer than their sources."""
    there = {
        os.path.join(folder, name).removesuffix(SUFFIX)
        for folder in FOLDERS
        for name in os.listdir(os.path.join(package, folder))
        if name.endswith(SUFFIX) and name != LIBRARY
    }
    library = os.path.join(package, LIBRARY)
    if there != set(MODULES) or not os.path.exists(library):
        return False
    if not os.path.exists(os.path.join(package, "../setup.cfg")):
        return True  # installed: times tell nothing
    made = os.path.getmtime(library)
    return all(os.path.getmtime(os.path.join(package, f"{name}.py")) <= made for name in MODULES)
