"""The websocket front end: hands jobs to the task workers and tells the page how they go.

The page sends JSON, one object a message:

    {"job": "1", "from": ..., "recipients": 1000 or [addresses], "contents": ...}   start a job
    {"cancel": "1"}                                                                 end it
    {"ping": anything}                                                              is anybody there?

and is told `hello`, `pong` and, for each job, `progress` any number of times, then either
`result` and `done` (작업 완료), or `error`. A job needs no greenlet here: each has a connection of
its own to the task workers, as on the Workerman page, and callbacks.

Plain HTTP requests get the page and, as JSON, what the mail sink has received.
"""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from gtask import AsyncTcpConnection

from .tasks import SMTP_HOST, SMTP_PORT

TASK_URL = os.environ.get("TASK_URL", "text://127.0.0.1:12345")
# Mails to a real server cannot be looked at here, and go to nobody who was not named.
SINK_URL = os.environ.get("SINK_URL") or (
    "" if os.environ.get("SMTP_HOST") else "http://127.0.0.1:1026"
)
MAX_JOBS = 20  # at once, for one page
MAX_RECIPIENTS = 100_000
JOB_LOST = -32004


# -- websocket ------------------------------------------------------------------------------------


def on_connect(page: Any) -> None:
    """A page has opened its websocket."""
    page.context.jobs = {}
    mail_server = f"{SMTP_HOST}:{SMTP_PORT}"
    tell(page, "hello", mail_server=mail_server, sink=bool(SINK_URL), max_recipients=MAX_RECIPIENTS)


def on_message(page: Any, data: str | bytes) -> None:
    """The page wants something."""
    try:
        wish = json.loads(data)
    except ValueError:
        wish = None
    if not isinstance(wish, dict):
        refuse(page, None, "expected a JSON object")
    elif "ping" in wish:
        tell(page, "pong", ping=wish["ping"])
    elif "cancel" in wish:
        job = page.context.jobs.get(str(wish["cancel"]))
        if job is not None:
            job.cancel()
    else:
        start(page, wish)


def start(page: Any, wish: dict[str, Any]) -> None:
    """Begin a job, if it makes sense."""
    name = wish.get("job")
    if not isinstance(name, str) or not 0 < len(name) <= 100:
        refuse(page, None, '"job" must be a name')
        return
    try:
        args = arguments(wish)
    except ValueError as problem:
        refuse(page, name, str(problem))
        return
    if name in page.context.jobs or len(page.context.jobs) >= MAX_JOBS:
        refuse(page, name, f"there is such a job already, or {MAX_JOBS} others")
        return
    page.context.jobs[name] = Job(page, name, args)


def arguments(wish: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `send_newsletter` that a page asks for.

    Raises:
        ValueError: it asks for nonsense.
    """
    recipients = wish.get("recipients")
    if isinstance(recipients, int) and not isinstance(recipients, bool):
        if not SINK_URL:
            raise ValueError(f"mails go to {SMTP_HOST}: name the recipients")
        if not 0 < recipients <= MAX_RECIPIENTS:
            raise ValueError(f"recipients: a number from 1 to {MAX_RECIPIENTS}")
        recipients = [f"reader{n:04}@example.org" for n in range(1, recipients + 1)]
    texts = [wish.get("from"), wish.get("contents")]
    if not isinstance(recipients, list) or not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise ValueError(f'"recipients" must be a number or a list of 1 to {MAX_RECIPIENTS}')
    if not all(isinstance(text, str) for text in [*texts, *recipients]):
        raise ValueError('"from", "contents" and each recipient must be text')
    return {"from": wish["from"], "recipients": recipients, "contents": wish["contents"]}


class Job:
    """One newsletter, from the page's wish to its result; goes on when the page has left."""

    def __init__(self, page: Any, name: str, args: dict[str, Any]) -> None:
        self.page = page
        self.name = name
        self.is_over = False
        call = {"function": "send_newsletter", "args": args, "options": {"progress": True}}
        self.connection = AsyncTcpConnection(TASK_URL)
        self.connection.on_message = self.on_reply
        self.connection.on_error = self.on_error
        self.connection.on_close = self.on_close
        self.send("gtask.call", call, id=self.name)
        self.connection.connect()

    def send(self, method: str, params: dict[str, Any], **more: Any) -> None:
        """Send a JSON-RPC message to the task workers; without an id nobody answers it."""
        self.connection.send(
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more})
        )

    def cancel(self) -> None:
        """Ask the task worker to end it; its answer, an error, comes as any other."""
        self.send("gtask.cancel", {"id": self.name})

    def on_reply(self, connection: AsyncTcpConnection, line: str) -> None:
        """The task workers have said something."""
        reply = json.loads(line)
        if reply.get("method") == "gtask.progress":
            self.tell("progress", done=reply["params"]["done"], total=reply["params"]["total"])
        elif "result" in reply:
            self.tell("result", result=reply["result"])
            self.tell("done", text="작업 완료")
            self.end()
        elif "error" in reply:
            self.tell("error", error=reply["error"])
            self.end()

    def on_error(self, connection: AsyncTcpConnection, code: int, message: str) -> None:
        """There is no task worker to be had."""
        self.tell("error", error={"code": JOB_LOST, "message": message})
        self.end()

    def on_close(self, connection: AsyncTcpConnection) -> None:
        """The connection to the task workers is gone; without an answer, so is the job."""
        if not self.is_over:
            self.tell("error", error={"code": JOB_LOST, "message": "the task worker was lost"})
            self.end()

    def tell(self, event: str, **details: Any) -> None:
        """Tell the page of this job."""
        tell(self.page, event, job=self.name, **details)

    def end(self) -> None:
        """It is over: forget it."""
        self.is_over = True
        self.page.context.jobs.pop(self.name, None)
        self.connection.close()


def tell(page: Any, event: str, **details: Any) -> None:
    """Send the page an event; one that has left does not hear it."""
    page.send(json.dumps({"event": event, **details}, ensure_ascii=False))


def refuse(page: Any, job: str | None, why: str) -> None:
    """Tell the page that what it asks for cannot be."""
    tell(page, "error", job=job, error={"code": -32602, "message": why})


# -- plain HTTP -----------------------------------------------------------------------------------

STATIC = Path(__file__).parent / "static"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/mailer.css": ("mailer.css", "text/css; charset=utf-8"),
    "/mailer.js": ("mailer.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
HEADERS = [("X-Content-Type-Options", "nosniff"), ("Cache-Control", "no-cache")]
JSON = "application/json"

StartResponse = Callable[[str, list[tuple[str, str]]], Any]


def application(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
    """WSGI: the page, its files, and `/messages` from the sink."""
    status, kind, body = respond(environ)
    start_response(status, [("Content-Type", kind), ("Content-Length", str(len(body))), *HEADERS])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def respond(environ: dict[str, Any]) -> tuple[str, str, bytes]:
    """The status, content type and body that answer a request."""
    path = environ.get("PATH_INFO", "/")
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return "405 Method Not Allowed", "text/plain", b"GET only\n"
    if path in FILES:
        name, kind = FILES[path]
        return "200 OK", kind, (STATIC / name).read_bytes()
    if path == "/messages" or path.startswith("/messages/"):
        return ask_sink(path, environ.get("QUERY_STRING", ""))
    return "404 Not Found", "text/plain", b"not found\n"


def ask_sink(path: str, query: str) -> tuple[str, str, bytes]:
    """What the sink answers."""
    if not SINK_URL:
        return "404 Not Found", JSON, json.dumps({"error": "there is no sink"}).encode()
    connection = http.client.HTTPConnection(urlsplit(SINK_URL).netloc, timeout=5)
    try:
        connection.request("GET", f"{quote(path)}?{query}")
        response = connection.getresponse()
        return f"{response.status} {response.reason}", JSON, response.read()
    except (OSError, http.client.HTTPException) as error:
        problem = {"error": f"cannot ask the mail sink: {error}"}
        return "502 Bad Gateway", JSON, json.dumps(problem).encode()
    finally:
        connection.close()
