"""The examples, as their READMEs start them: real workers, the real gunicorn."""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import websockets.sync.client

from ..support.spawn import ROOT
from ..support.wait import SLOWNESS, wait_until
from .test_haproxy import free_port


@pytest.fixture
def tasks(spawn):
    """The URL of an example's workers, started with its own worker.ini."""

    def start(example):
        ini = (ROOT / "examples" / example / "worker.ini").read_text()
        assert "text://127.0.0.1:12345" in ini
        server = spawn(
            ini.replace(":12345", ":0").replace("run/", ""), env={"PYTHONPATH": str(ROOT)}
        )
        server.expects_traceback = True
        (name,) = [line[8:-1] for line in ini.splitlines() if line.startswith("[worker:")]
        return server.url(name)

    return start


@contextlib.contextmanager
def gunicorn(url, *arguments):
    """gunicorn with an application whose tasks are at `url`; gives its own address."""
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TASKS": url}
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )

    def answers():
        assert process.poll() is None, process.stdout.read()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/"):
                return True
        except urllib.error.HTTPError as error:
            error.close()
            return True
        except OSError:
            return False

    try:
        wait_until(answers, 20, "gunicorn")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        log, _ = process.communicate(timeout=20 * SLOWNESS)
    assert "Traceback" not in log, log
    assert process.returncode == 0


def post(address, path, data):
    request = urllib.request.Request(
        f"http://{address}{path}", json.dumps(data).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("options", [(), ("--preload", "-w", "2")], ids=["plain", "preload"])
def test_flask_under_gunicorn(tasks, options):
    may = {"title": "May", "rows": [1, 2, 3]}
    result = {"title": "May", "rows": 3, "total": 6}
    application = "examples.flask_gevent.app:app"
    with gunicorn(tasks("flask_gevent"), "-k", "gevent", *options, application) as address:
        assert post(address, "/report", may) == (200, result)
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: post(address, "/report", may), range(20)))
        assert answers == [(200, result)] * 20
        assert time.monotonic() - started < 2 * SLOWNESS  # one after the other: 4 s
        status, answer = post(address, "/report", {"title": "none", "rows": []})
        assert (status, answer["error"]["data"]["type"]) == (500, "ValueError")
        status, answer = post(address, "/reports", [may, {"title": "half"}])
        assert (status, answer[0], answer[1]["code"]) == (200, result, -32602)


def test_flask_without_workers():
    url = f"text://127.0.0.1:{free_port()}"
    with gunicorn(url, "-k", "gevent", "examples.flask_gevent.app:app") as address:
        status, answer = post(address, "/report", {"title": "May", "rows": [1]})
        assert (status, answer["error"]["code"]) == (503, -32004)


def test_gevent_websocket_under_gunicorn(tasks):
    worker = "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"
    application = "examples.websocket_gevent.app:application"
    to = [f"{number}@example.org" for number in range(5)]
    with contextlib.ExitStack() as stack:
        server = gunicorn(tasks("websocket_gevent"), "-k", worker, application)
        url = f"ws://{stack.enter_context(server)}/"
        browsers = [stack.enter_context(websockets.sync.client.connect(url)) for _ in range(10)]
        for browser in browsers:
            browser.send(json.dumps({"to": to, "contents": "hi"}))
        for browser in browsers:
            messages = [json.loads(browser.recv(timeout=20)) for _ in range(6)]
            assert messages[:5] == [{"done": n, "total": 5} for n in range(1, 6)]
            assert messages[5] == {"result": "5 x hi", "message": "작업 완료"}
        browsers[0].send(json.dumps({"to": to}))
        assert "missing contents" in json.loads(browsers[0].recv(timeout=20))["error"]


def test_plain_script(tasks):
    texts = [f"text {number}" for number in range(30)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TASKS": tasks("plain_script")}
    command = [sys.executable, "-m", "examples.plain_script.script", *texts]
    started = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    expected = {f"{text} {hashlib.sha256(text.encode()).hexdigest()}" for text in texts}
    assert set(done.stdout.splitlines()) == expected
    assert time.monotonic() - started < 2 * SLOWNESS
