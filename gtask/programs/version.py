"""`--version`, as all of our programs have it."""

from __future__ import annotations

import argparse

from ..compiled import version


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option that tells what runs."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {version()}",
        help="say which gtask this is",
    )
