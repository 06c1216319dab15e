"""INI text: its sections and keys, and the settings that they make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigError
from .cron import CronSettings, read_cron
from .settings import (
    KEYS,
    ServiceSettings,
    Settings,
    conflicts,
    missing_certificates,
    missing_proxies,
    read_values,
    wrong_purpose,
)
from .stores import store_conflicts

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")  # tabs and the ends of lines are none
COMMENT = re.compile(r"(?<!\S);.*|^\s*#.*")


def load_settings(path: str) -> Settings:
    """Read an INI file.

    Raises:
        ConfigError: all that is wrong, as ``FILE [section] key: what is wrong``.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: not UTF-8: {error}"]) from None
    return parse_settings(text, path)


def find_master(path: str) -> Settings:
    """What it takes to talk to the master of an INI file, which may have been broken since.

    That is `pid_file` and `control`, as far as they can be read; there are no services.
    """
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            top = read_sections(file.read(), path, []).get("gtask", {})
    except OSError:
        top = {}
    return Settings(pid_file=top.get("pid_file", ""), control=top.get("control", ""), file=path)


def parse_settings(text: str, file: str = "") -> Settings:
    """Read INI text; `file` names it in messages.

    Raises:
        ConfigError: all that is wrong.
    """
    problems: list[str] = []
    sections = read_sections(text, file, problems)
    top: dict[str, Any] = {}
    services: list[tuple[str, dict[str, Any]]] = []
    crons: list[CronSettings] = []
    for section, keys in sections.items():
        kind, _, name = section.partition(":")
        if section == "gtask":
            top, wrong = read_values(Settings, keys)
            wrong += _swallowed(keys)
        elif kind == "worker" and name.strip():
            read, wrong = read_values(ServiceSettings, keys)
            wrong += [*_swallowed(keys), *wrong_purpose(read, keys), *missing_certificates(keys)]
            wrong += missing_proxies(read, keys)
            services.append((name.strip(), read))
        elif kind == "cron" and name.strip():
            cron, wrong = read_cron(name.strip(), keys)
            crons += [] if cron is None else [cron]
        else:
            problems.append(
                f"{file} [{section}]: unknown section, expected [gtask], [worker:NAME] or [cron:NAME]"
            )
            continue
        problems += [f"{file} [{section}] {one}" for one in wrong]
    if not any(section.startswith("worker:") for section in sections):
        problems.append(f"{file}: there is no [worker:NAME] section, so nothing to serve")
    taken = conflicts((name, read.get("listen")) for name, read in services)
    problems += [f"{file} [worker:{name}] {one}" for name, one in taken]
    if problems:
        raise ConfigError(problems)
    made = tuple(ServiceSettings(name=name, **read) for name, read in services)
    if problems := [f"{file} [worker:{name}] {one}" for name, one in store_conflicts(made)]:
        raise ConfigError(problems)
    return Settings(**top, services=made, crons=tuple(crons), file=file)


def _swallowed(keys: dict[str, str]) -> Iterator[str]:
    """Lines that were meant to be keys, but are indented, and so go on with the value before."""
    for key, value in keys.items():
        for line in value.split("\n"):
            name, equals, _ = map(str.strip, line.partition("="))
            if equals and name in KEYS:
                yield f"{key}: holds {line!r}; if that is a key, it must not be indented"


def read_sections(text: str, file: str, problems: list[str]) -> dict[str, dict[str, str]]:
    """The keys of each section, as text.

    Valid text is read as configparser reads it. But configparser stops at the first mistake, and
    passes over what follows a section's name; here each line that is not used gets into `problems`.
    """
    reader = _Reader(file, problems)
    for number, line in _logical_lines(text):
        reader.take(number, line)
    return reader.sections


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Each section's and key's line, by the number that it begins at, without comments.

    A value goes on in lines that are indented more than its key; a section never is part of one.
    """
    start, indent, joined = 0, 0, ""
    for number, written in enumerate(text.split("\n"), 1):
        line = COMMENT.sub("", written).strip()
        deep = len(written) - len(written.lstrip())
        if not line:
            continue
        has_value = "=" in joined and not joined.startswith("[")
        if has_value and deep > indent and not line.startswith("["):
            joined += f"\n{line}"
            continue
        if joined:
            yield start, joined
        start, indent, joined = number, deep, line
    if joined:
        yield start, joined


class _Reader:
    """Takes one logical line after the other, and sorts them by their sections."""

    def __init__(self, file: str, problems: list[str]) -> None:
        self.sections: dict[str, dict[str, str]] = {}
        self._file = file
        self._problems = problems
        self._section = ""
        self._keys: dict[str, str] | None = None  # of the section that is being read
        self._is_repeated = False

    def take(self, number: int, line: str) -> None:
        complaint = self._open(line) if line.startswith("[") else self._add(line)
        if not complaint and (control := CONTROL.search(line)):
            complaint = f": holds a control character, {control[0]!r}"
        if complaint:
            first = CONTROL.sub("?", line.partition("\n")[0])
            self._problems.append(f"{self._file}{complaint} (line {number}: {first})")

    def _open(self, line: str) -> str:
        """Begin a section; returns what is wrong, if anything is."""
        name, bracket, rest = line[1:].partition("]")
        self._section = name
        self._is_repeated = name in self.sections
        self._keys = self.sections.setdefault(name, {})
        if self._is_repeated:
            return f" [{name}]: is there twice"
        return "" if bracket and not rest else f" [{name}]: expected nothing but [SECTION]"

    def _add(self, line: str) -> str:
        """Add a key to the section; returns what is wrong, if anything is."""
        key, equals, value = map(str.strip, line.partition("="))
        if self._keys is None:
            return ": a line before the first [section]"
        if self._is_repeated:
            return ""  # has been told, for the whole section
        if not key or not equals:
            return ": expected KEY = VALUE"
        if key in self._keys:
            return f" [{self._section}] {key}: is given twice"
        self._keys[key] = value
        return ""
