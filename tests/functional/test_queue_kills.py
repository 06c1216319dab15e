"""Histories: what was accepted reaches one final state, whoever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..support.kills import History
from ..support.wait import SLOWNESS, wait_until

TASKS = 400
KILLS = 10


@pytest.mark.parametrize("seed", [11, 12])
def test_every_accepted_task_reaches_one_end(tmp_path: Path, seed: int):
    history = History(tmp_path, seed, TASKS)
    try:
        history.run(KILLS, 0.2 * SLOWNESS)

        def states() -> dict[str, str] | None:
            found = history.states()
            return None if {"ready", "delayed", "running"} & set(found.values()) else found

        found = wait_until(states, 60, "all are final")
        runs = history.runs()
    finally:
        history.worker.expects_traceback = True
        history.worker.close()
    assert history.accepted == [f"t{number}" for number in range(TASKS)]
    for number, id in enumerate(history.accepted):
        if number % 10 == 9:
            assert found[id] == "dead"
            assert runs[id]["failed"] <= 3 + sum(history.kills.values())
        else:
            assert found[id] == "done"
            assert runs[id]["ended"] >= 1
    again = sum(runs[id]["began"] > 1 for id in runs)
    assert not again or history.kills, "something ran twice without a kill"
