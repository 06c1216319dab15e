"""`--version`, as all of our programs have it."""

from __future__ import annotations

import argparse
import sys

from .. import __version__
from ..compiled import how


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option that tells what runs."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {__version__} ({how()}, Python {sys.version.split()[0]})",
        help="say which gtask this is",
    )
