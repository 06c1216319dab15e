"""Fixtures of all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .support.spawn import SpawnedWorker


@pytest.fixture
def spawn(tmp_path: Path) -> Iterator[Callable[..., SpawnedWorker]]:
    """Start real workers: ``spawn(ini, **modules)`` with the text of task modules by name."""
    spawned: list[SpawnedWorker] = []

    def start(ini: str, *, env: dict[str, str] | None = None, wait: bool = True, **modules: str):
        folder = tmp_path / f"worker{len(spawned)}"
        folder.mkdir()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        worker = SpawnedWorker(folder, ini, env=env, wait=wait)
        spawned.append(worker)
        return worker

    yield start
    for worker in reversed(spawned):
        worker.close()
