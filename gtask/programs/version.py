"""`--version`, as all of our programs have it."""

from __future__ import annotations

import argparse

from ..version import what_runs


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the option that tells what runs."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {what_runs()}",
        help="say which gtask this is",
    )
