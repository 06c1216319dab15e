"""Which gtask this is."""

from __future__ import annotations

import sys

from .compiled import how

__version__ = "0.1.0"


def what_runs() -> str:
    """What the programs and the log tell, e.g. "0.1.0 (compiled, Python 3.11.7)"."""
    return f"{__version__} ({how()}, Python {sys.version.split()[0]})"
