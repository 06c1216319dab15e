"""`gtask-queue`, with and without workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gtask import Queue

from ..support.spawn import ROOT


@pytest.fixture
def run(tmp_path: Path):
    def gtask_queue(*words: str, url: str = "sqlite:file.db") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "gtask.programs.queue", "--timeout", "2", url, *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return gtask_queue


def test_put_list_show_cancel_purge(run, tmp_path):
    done = run("put", "send_mail", "to=b@x", "--id", "m1", "--priority", "high")
    assert (done.returncode, done.stdout) == (0, "m1\n")
    assert json.loads(run("put", "report", "[1]", "--json").stdout)["created"]
    assert "ready          2" in run("counts").stdout
    assert json.loads(run("--json", "counts").stdout)["ready_high"] == 1
    lines = run("list").stdout.splitlines()
    assert lines[1].split()[:3] == ["m1", "ready", "high"]
    assert "send_mail" in lines[1]
    (only,) = run("list", "--function", "report", "--json").stdout.splitlines()
    assert json.loads(only)["function"] == "report"
    assert len(run("list", "--after", "m1").stdout.splitlines()) == 2
    assert 'args              {"to": "b@x"}' in run("show", "m1").stdout
    assert run("cancel", "m1").stdout == "m1 cancelled\n"
    assert run("purge", "--state", "cancelled", "--older", "7d").stdout == "purged: 0\n"
    assert run("purge", "--state", "cancelled", "--older", "0s").stdout == "purged: 1\n"
    assert run("check").stdout == "all is well\n"
    assert run("pause").returncode == run("resume").returncode == 0
    assert run("backup", "copy.db").returncode == 0
    assert "ready          1" in run("counts", url="sqlite:copy.db").stdout
    assert run("backup", "copy.db").returncode == 1


def test_how_it_fails(run, tmp_path):
    assert run("show", "nothing").returncode == 1
    assert run("retry", "nothing").returncode == 1
    assert run("retry").returncode == 2
    assert run("frobnicate").returncode == 2
    assert run("counts", url="mysql://x").returncode == 78
    assert run("pause", url="text://127.0.0.1:1").returncode == 2
    assert run("counts", url="text://127.0.0.1:1").returncode == 75
    (tmp_path / "file.db").write_bytes(b"no database at all" * 1000)
    assert run("counts").returncode == 75


TASKS = """
import os
from gtask import task

@task
def may_fail():
    if os.path.exists("broken"):
        raise ValueError("broken")
    return "mended"
"""


def test_replay_of_the_dead(run, spawn):
    ini = "[worker:Tasks]\nlisten = text://127.0.0.1:0, sqlite:tasks.db\ntasks = may\n"
    worker = spawn(ini, may=TASKS)
    worker.expects_traceback = True
    (worker.folder / "broken").touch()
    url = f"sqlite://{worker.folder}/tasks.db"
    with Queue(url) as queue:
        jobs = [queue.put("may_fail") for _ in range(3)]
        for job in jobs:
            with pytest.raises(Exception, match="broken"):
                job.get(10)
        (worker.folder / "broken").unlink()
        assert "dead" in run("show", jobs[0].id, url=url).stdout
        assert run("retry", "--all", "--function", "may_fail", url=url).stdout == "retried: 3\n"
        assert [job.get(10) for job in jobs] == ["mended"] * 3
    counts = run("counts", "--json", url=worker.url())
    assert json.loads(counts.stdout)["default"]["done"] == 3
    assert run("show", jobs[0].id, url=worker.url()).returncode == 0
