"""Fixtures of all tests."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from .support.spawn import SpawnedWorker

# How long an example takes says more of the machine than of the code.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., SpawnedWorker]]:
    """Start real workers: ``spawn(ini, **modules)`` with the text of task modules by name."""
    yield from _spawn(tmp_path)


@pytest.fixture(scope="module")
def module_spawn(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[..., SpawnedWorker]]:
    """The same for workers that all tests of a module share."""
    yield from _spawn(tmp_path_factory.mktemp("spawned"))


def _spawn(tmp_path: Path) -> Iterator[Callable[..., SpawnedWorker]]:
    numbers = itertools.count()
    with ExitStack() as spawned:

        def start(
            ini: str, *, env: dict[str, str] | None = None, wait: bool = True, **modules: str
        ):
            folder = tmp_path / f"worker{next(numbers)}"
            folder.mkdir()
            for name, text in modules.items():
                (folder / f"{name}.py").write_text(text)
            worker = SpawnedWorker(folder, ini, env=env, wait=False)
            spawned.callback(worker.close)  # whatever happens next, to it or to another one
            if wait:
                worker.wait_ready()
            return worker

        yield start
