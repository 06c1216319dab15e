"""Names that a script's modules took from the standard library before it was patched.

``from time import sleep`` binds the function that there was then; put first in a script, it stops
the whole worker later. Such names are bound anew, and it is said once what cannot be mended so.
"""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from gevent import monkey

from ..logs.loggers import get_logger

log = get_logger(__name__)

SHOWN = 5  # modules that are named in the log
_OURS = (
    "gevent",
    "gtask",
    "greenlet",
    "zope",
    "_pytest",
    "pytest",
)  # what holds originals on purpose


def rebind_early_names() -> list[str]:
    """Bind them to what the patched modules have now, and warn of it; returns what was found."""
    patched = _patched()
    found = []
    for name, module in _users_modules():
        taken = _rebind(module, patched)
        if taken:
            found.append(f"{name}: {', '.join(taken)}")
    if found:
        log.warning(
            "imported before gtask patched the standard library (%s%s): the names are bound anew,"
            " but classes, locks and sockets made of them block the process; a script's first lines"
            " should be: from gtask.patches import patch_all; patch_all()",
            "; ".join(found[:SHOWN]),
            " ..." if len(found) > SHOWN else "",
        )
    return found


def _patched() -> dict[int, tuple[str, Any]]:
    """What replaces each original, by that one's id."""
    table = {}
    for module_name, names in vars(monkey)["saved"].items():
        module = sys.modules.get(module_name)
        for name, old in names.items():
            new = getattr(module, name, None)
            if callable(old) and new is not None and new is not old:
                table[id(old)] = (f"{name} of {module_name}", new)
    return table


def _users_modules() -> Iterator[tuple[str, ModuleType]]:
    """Those that are neither the standard library's nor hold originals on purpose."""
    standard = sysconfig.get_path("stdlib")
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        is_standard = file.startswith(standard) and "site-packages" not in file
        if file and not is_standard and name.partition(".")[0] not in _OURS:
            yield name, module


def _rebind(module: ModuleType, patched: dict[int, tuple[str, Any]]) -> list[str]:
    taken = []
    for name, value in list(vars(module).items()):
        if (found := patched.get(id(value))) is not None:
            setattr(module, name, found[1])
            taken.append(found[0])
    return taken
