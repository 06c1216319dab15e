"""Whether gtask's hot modules run compiled or from their sources.

Where a C compiler is there, installing gtask compiles the modules named here with mypyc; Python
then takes those before their sources. The name of the library that holds their code has a hash of
the sources that it was made of. The sources are what runs where they were not compiled, where
they are not those that were compiled, and where GTASK_PURE is set in the environment.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES, FileFinder, SourceFileLoader
from importlib.util import find_spec, source_hash
from typing import TYPE_CHECKING

MODULES = (
    "binding",
    "net/calling",
    "net/connection",
    "net/connector",
    "net/debts",
    "net/lingerer",
    "net/outbox",
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
    "server/entrance",
    "server/fairness",
    "server/gate",
    "server/limits",
    "server/pace",
    "server/ready",
    "server/replies",
    "server/reports",
    "server/service",
    "server/stats",
    "server/task_greenlet",
    "server/turns",
)
FOLDERS = {os.path.dirname(name) for name in MODULES}
SUFFIX = EXTENSION_SUFFIXES[0]

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
    there = _compiled(package)
    if there and (are_sources_asked_for() or not _are_of_the_sources(there, package)):
        for name in FOLDERS:
            folder = os.path.join(package, name).rstrip("/")
            finder = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES))
            sys.path_importer_cache[folder] = finder


def are_sources_asked_for() -> bool:
    """Whether GTASK_PURE is set, at build time or at run time; empty or 0 is the same as unset."""
    return os.environ.get("GTASK_PURE", "") not in ("", "0")


def group(package: str) -> str:
    """What mypyc is to call the modules of the package in that directory as a whole.

    It holds a hash of their names and sources. That is the function that Python has for its own
    compiled files: it takes 0.2 ms for all of them, while to import hashlib alone takes 4 ms.
    """
    parts: list[bytes] = []
    for name in MODULES:
        with open(os.path.join(package, f"{name}.py"), "rb", buffering=0) as file:
            source = file.read()
        parts += (f"{name} {len(source)}\n".encode(), source)
    return f"compiled_{source_hash(b''.join(parts)).hex()}"


def is_compiled() -> bool:
    """Whether the compiled modules run."""
    spec = find_spec("gtask.protocols.text")
    return spec is not None and spec.origin is not None and spec.origin.endswith(SUFFIX)


def how() -> str:
    """What the programs and the benchmarks tell of it."""
    return "compiled" if is_compiled() else "from sources"


def _compiled(package: str) -> set[str]:
    """The compiled modules that are there, and the library."""
    return {
        os.path.join(folder, name).removesuffix(SUFFIX)
        for folder in FOLDERS
        for name in os.listdir(os.path.join(package, folder))
        if name.endswith(SUFFIX)
    }


def _are_of_the_sources(there: set[str], package: str) -> bool:
    """Whether these are the modules named here, and the library that was made of their sources."""
    try:
        return there == {*MODULES, f"{group(package)}__mypyc"}
    except FileNotFoundError:
        return True  # installed without the sources: nothing else could run
