"""``[cron:NAME]`` sections: tasks that are put by the clock."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from ..store_address import StoreAddress
from . import values
from .values import BadValue

NAME = re.compile(r"[A-Za-z0-9._-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class CronSettings:
    """One ``[cron:NAME]`` section (docs/configuration.md describes each key).

    Attributes:
        queue: where the tasks are put.
        when: the five fields of crontab(5).
        args: JSON of an object or an array.
        timezone: a name of the IANA database, in which `when` is meant.
        grace: seconds after which a moment that was missed is let go.
    """

    name: str
    queue: StoreAddress
    when: str
    function: str
    args: str = "[]"
    timezone: str = "UTC"
    grace: float = 3600.0


def read_cron(name: str, given: dict[str, str]) -> tuple[CronSettings | None, list[str]]:
    """The settings of a section, and what is wrong with it, each as ``key: why``."""
    wrong = [f"{key}: unknown key" for key in given if key not in _READ]
    wrong += [f"{key}: is missing" for key in ("queue", "when", "function") if not given.get(key)]
    if not NAME.fullmatch(name):
        wrong.append("name: expected letters, digits and . _ - only")
    read: dict[str, Any] = {}
    for key, value in given.items():
        if key in _READ and value.strip():
            try:
                read[key] = _READ[key](value)
            except BadValue as error:
                wrong.append(f"{key}: {error}")
    return (None, wrong) if wrong else (CronSettings(name=name, **read), [])


def _queue(value: str) -> StoreAddress:
    places = values.places(value)
    if len(places.stores) != 1 or not places.address.is_nowhere:
        raise BadValue(f"expected one store, not {value!r}")
    return places.stores[0]


def _when(value: str) -> str:
    from datetime import UTC, datetime  # all three for the few that have such a section

    from cronsim import CronSim, CronSimError

    when = values.text(value)
    try:
        CronSim(when, datetime.now(UTC))
    except CronSimError as error:
        raise BadValue(f"{value!r}: {error}, expected e.g. 0 3 * * *") from None
    return when


def _args(value: str) -> str:
    try:
        args = json.loads(value)
    except ValueError:
        args = None
    if not isinstance(args, dict | list):
        raise BadValue(f"expected a JSON object or array, not {value!r}")
    return json.dumps(args)


def _timezone(value: str) -> str:
    from zoneinfo import ZoneInfo

    name = values.text(value)
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        raise BadValue(f"there is no time zone {name!r}") from None
    return name


_READ = {
    "queue": _queue,
    "when": _when,
    "function": values.text,
    "args": _args,
    "timezone": _timezone,
    "grace": values.seconds,
}
