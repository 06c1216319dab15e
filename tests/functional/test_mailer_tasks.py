"""The example's tasks against the real sink: progress, refusals, a mail server that comes and goes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ..support.mailer import Sink, free_port
from ..support.spawn import SpawnedWorker
from ..support.wait import wait_until

INI = """
[worker:Tasks]
listen = text://127.0.0.1:0
tasks = examples.mailer.tasks
"""


@contextmanager
def worker_for(smtp_port: int, folder: Path) -> Iterator[SpawnedWorker]:
    worker = SpawnedWorker(folder, INI, env={"SMTP_HOST": "", "SMTP_PORT": str(smtp_port)})
    try:
        yield worker
    finally:
        worker.close()


@pytest.fixture(scope="module")
def sink() -> Iterator[Sink]:
    sink = Sink()
    yield sink
    sink.stop()


@pytest.fixture(scope="module")
def worker(sink: Sink, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SpawnedWorker]:
    with worker_for(sink.smtp_port, tmp_path_factory.mktemp("worker")) as worker:
        yield worker


def newsletter(recipients: Any, progress: bool = False) -> dict[str, Any]:
    args = {"from": "news@example.org", "recipients": recipients, "contents": "안녕\nhello"}
    options = {"progress": progress}
    params = {"function": "send_newsletter", "args": args, "options": options}
    return {"jsonrpc": "2.0", "method": "gtask.call", "params": params, "id": 1}


def readers(count: int) -> list[str]:
    return [f"reader{number}@example.org" for number in range(count)]


def test_a_bare_task_sends_one_mail(worker: SpawnedWorker, sink: Sink) -> None:
    before = sink.count
    mail = {"from": "a@example.org", "to": "b@example.org", "contents": "새 소식\nmore"}
    with worker.peer() as peer:
        assert peer.ask({"function": "send_mail", "args": mail})["sent"] == 1
    assert sink.count == before + 1
    message = sink.messages(1)[0]
    assert (message["from"], message["to"]) == ("a@example.org", ["b@example.org"])
    whole = sink.get(f"/messages/{message['id']}")
    assert (whole["subject"], whole["text"].strip()) == ("새 소식", "새 소식\nmore")


def test_a_newsletter_tells_its_progress(worker: SpawnedWorker, sink: Sink) -> None:
    before = sink.count
    with worker.peer() as peer:
        peer.ask(newsletter(readers(1)))
        message = peer.ask(newsletter(readers(500), progress=True))
        told = []
        while "method" in message:
            assert message["method"] == "gtask.progress"
            assert message["params"]["total"] == 500
            told.append(message["params"]["done"])
            message = peer.json()
    assert told == sorted(told)
    assert told[-1] == 500
    assert len(told) > 2
    result = message["result"]
    assert (result["sent"], result["failed"], result["failures"]) == (500, 0, [])
    assert sink.count == before + 501


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("x@refused.example", "550 5.1.1 no such mailbox here"),
        ("two@lines\n.example", None),
        ("", "550 5.1.3 not a mail address"),
        ("nobody", "550 5.1.3 not a mail address"),
    ],
)
def test_a_recipient_that_fails_is_told_and_stops_no_other(
    worker: SpawnedWorker, address: str, reason: str | None
) -> None:
    with worker.peer() as peer:
        result = peer.ask(newsletter(["a@example.org", address, "b@example.org"]))["result"]
    assert (result["sent"], result["failed"]) == (2, 1)
    assert result["failures"][0]["to"] == address
    assert reason in (None, result["failures"][0]["reason"])


def test_a_refused_mail_is_an_error(worker: SpawnedWorker) -> None:
    mail = {"from": "a@example.org", "to": "x@refused.example", "contents": "hi"}
    worker.expects_traceback = True  # in the log, for the operator
    with worker.peer() as peer:
        error = peer.ask({"function": "send_mail", "args": mail})["error"]
    assert error["code"] == 1
    assert error["data"]["type"] == "MailRefused"
    assert "550 5.1.1" in error["message"]


def test_a_mail_server_that_restarts_loses_no_mail(tmp_path: Path) -> None:
    port = free_port()
    first = Sink(port, delay=5)
    with worker_for(port, tmp_path) as worker, worker.peer() as peer:
        peer.send(json.dumps(newsletter(readers(200))).encode() + b"\n")
        received = wait_until(lambda: first.count >= 50 and first.count)
        first.stop(signal.SIGKILL)
        second = Sink(port)
        try:
            result = peer.json()["result"]
            assert (result["sent"], result["failed"]) == (200, 0)
            # One may be sent twice: taken, but not yet acknowledged when the first sink ended.
            assert 0 < second.count <= 200 - received + 1
        finally:
            second.stop()


def test_no_mail_server_is_an_error_that_names_it(tmp_path: Path) -> None:
    port = free_port()
    with worker_for(port, tmp_path) as worker, worker.peer() as peer:
        worker.expects_traceback = True
        error = peer.ask(newsletter(readers(3)))["error"]
    assert error["code"] == 1
    assert error["data"]["type"] == "MailServerLost"
    assert f"0 of 3 mails sent, then: cannot reach 127.0.0.1:{port}" in error["message"]
