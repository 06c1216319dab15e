"""Configuration: INI text in, frozen settings out, with everything that is wrong told at once.

The keys and their rules are two tables, `Settings` and `ServiceSettings`; an INI file and the
keyword arguments of `Worker` and `run_all` are read by the same code.
"""

from .cron import CronSettings
from .ini import find_master, load_settings, parse_settings
from .settings import ServiceSettings, Settings, make_service, make_settings
from .stores import StoreSettings, stores_of

__all__ = [
    "CronSettings",
    "ServiceSettings",
    "Settings",
    "StoreSettings",
    "find_master",
    "load_settings",
    "make_service",
    "make_settings",
    "parse_settings",
    "stores_of",
]
