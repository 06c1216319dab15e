"""What workers need of the machine: they get as much as there is, and what is missing is told once."""

from __future__ import annotations

import os
import resource

from ..config import Settings
from ..logs.loggers import get_logger
from ..process import resident_bytes

log = get_logger(__name__)

OWN_DESCRIPTORS = 16  # what a worker has open besides connections, about


def prepare_surroundings(settings: Settings) -> int:
    """To be called before the workers are forked, once for all; returns how many descriptors each
    may have.
    """
    descriptors = _raise_descriptor_limit()
    most = max((service.max_connections for service in settings.services), default=0)
    if descriptors < most + OWN_DESCRIPTORS:
        log.warning(
            "a process may have %d descriptors (ulimit -n), which is not enough for %d connections"
            " (max_connections)",
            descriptors,
            most,
        )
    limits_memory = any(service.max_rss_mb for service in settings.services)
    if limits_memory and not resident_bytes(os.getpid()):
        log.warning("max_rss_mb has no effect: /proc does not tell the memory of a process")
    return descriptors


def _raise_descriptor_limit() -> int:
    """Take as many as we may have; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
