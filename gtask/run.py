"""`run_all`: makes the calling script the master of the workers it has declared."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from .config import make_settings
from .errors import ConfigError
from .master.master import Master
from .server.mold import run_mold
from .server.stores import run_store
from .streams import open_standard_streams
from .worker import Worker


def run_all(*workers: Worker, **options: Any) -> NoReturn:
    """Run the workers until a signal ends them, then exit; this process becomes their master.

    Args:
        workers: what to run.
        options: any key of the ``[gtask]`` section, e.g. ``stop_timeout=10``.

    Raises:
        SystemExit: always; 0 after a clean stop (docs/signals.md).
    """
    open_standard_streams()
    _number_namesakes(workers)
    try:
        settings = make_settings((worker.settings() for worker in workers), **options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        sys.exit(os.EX_CONFIG)
    master = Master(
        settings,
        lambda generation: run_mold(generation, workers=workers),
        start_store=run_store,
    )
    sys.exit(master.run())


def _number_namesakes(workers: tuple[Worker, ...]) -> None:
    """Workers without a name of their own are told apart as Worker, Worker-2 ..."""
    taken: set[str] = set()
    for worker in workers:
        name, number = worker.name, 2
        while worker.name in taken:
            worker.name = f"{name}-{number}"
            number += 1
        taken.add(worker.name)
