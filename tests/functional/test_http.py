"""Plain HTTP beside a websocket: what a WSGI `application` gets, and what a drain does to it."""

from __future__ import annotations

import signal
import time
from pathlib import Path

from ..support.spawn import SpawnedWorker
from ..support.wait import SLOWNESS, wait_until

HANDLER = """
import time
def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        print("slow begins", flush=True)
        time.sleep(1)
    start_response("200 OK", [("Content-Length", "4")])
    return [b"ok\\r\\n"]
"""
INI = """
[worker:Web]
listen = websocket://127.0.0.1:0
handler = page
"""
REQUEST = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_drain_answers_requests_and_does_not_wait_for_idle_connections(tmp_path: Path) -> None:
    (tmp_path / "page.py").write_text(HANDLER)
    worker = SpawnedWorker(tmp_path, INI)
    try:
        with worker.peer("Web") as idle, worker.peer("Web") as busy:
            for peer in (idle, busy):
                peer.send(REQUEST % b"/")
                while peer.line() != b"ok\r":
                    pass
            busy.send(REQUEST % b"/slow")
            wait_until(lambda: "slow begins" in worker.text)
            began = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            assert idle.is_closed()
            assert busy.rest().endswith(b"\r\n\r\nok\r\n")
            assert worker.stop() == 0
            assert time.monotonic() - began < 5 * SLOWNESS
    finally:
        worker.close()
