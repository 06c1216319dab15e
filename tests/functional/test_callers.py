"""Programs that people have, while their servers are reloaded, recycled, restarted and frozen.

`bench/callers` has the first two for longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until
from .test_haproxy import free_port

INI = """
[gtask]
control = worker.sock
stop_timeout = 10
[worker:Tasks]
listen = text://127.0.0.1:0
count = 2
tasks = things
max_tasks = 40
idle_timeout = 1
"""
TASKS = """
from gtask import task

@task
def add(a, b):
    return a + b
"""
SITE = """
import os
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from gtask import TaskClient

settings.configure(SECRET_KEY="x", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__)
client = TaskClient(os.environ["TASKS"])

def total(request):
    return HttpResponse(str(client.call("add", [int(request.GET["a"]), 1]).get(timeout=20)))

urlpatterns = [path("total", total)]
application = get_wsgi_application()
"""


@pytest.mark.parametrize("what", ["plain", "endpoints"])
def test_no_call_is_lost_or_doubled(what):
    done = subprocess.run(
        [sys.executable, str(ROOT / "bench" / "callers"), what, "--seconds", "10"],
        capture_output=True,
        text=True,
        timeout=60 * SLOWNESS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(params=["sync", "gthread", "gevent"])
def site(request, spawn, tmp_path):
    """A Django site under gunicorn; its URL and the gtask worker that its view calls."""
    server = spawn(INI, things=TASKS)
    (tmp_path / "site_of_ours.py").write_text(SITE)
    port = free_port()
    threads = ["--threads", "4"] if request.param == "gthread" else []
    words = ["-k", request.param, "-w", "2", *threads, "-b", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *words, "site_of_ours:application"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "TASKS": server.url()},
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/total?a="
    try:
        wait_until(lambda: ask(url, 1) == "2", 20)
        yield url, server
    finally:
        process.terminate()
        process.wait(20 * SLOWNESS)


def ask(url: str, number: int) -> str:
    try:
        with urllib.request.urlopen(f"{url}{number}", timeout=30) as answer:
            return answer.read().decode()
    except OSError as error:
        return repr(error)


def test_a_view_of_django_through_reloads_recycles_and_idle_times(site):
    """GTASK_TEST_RELOADS=50 makes it as many as there should be once."""
    url, server = site
    ended = threading.Event()
    wrong: list[str] = []
    counts = [0] * 3

    def browse(place: int) -> None:
        while not ended.is_set():
            counts[place] += 1
            answer = ask(url, counts[place])
            if answer != str(counts[place] + 1):
                wrong.append(answer)
            time.sleep((0.0, 0.1, 1.2)[(counts[place] // 20 + place) % 3])

    browsers = [threading.Thread(target=browse, args=(place,)) for place in range(3)]
    for browser in browsers:
        browser.start()
    for _ in range(int(os.environ.get("GTASK_TEST_RELOADS", "3"))):
        assert server.command("reload").returncode == 0
        time.sleep(1)  # so that some connections are idle, and others are not
    ended.set()
    for browser in browsers:
        browser.join()
    assert not wrong
    assert sum(counts) > 20
