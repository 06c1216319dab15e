"""A mail server that delivers nothing: it keeps what it received, for the page to show.

    python -m examples.mailer.sink --smtp-port 1025 --http-port 1026

SMTP on one port (aiosmtpd), on another JSON by plain HTTP:

    GET /messages?newest=20   {"count": received in all, "kept": ..., "messages": [newest first]}
    GET /messages/ID          one message with its headers and text

What it keeps is bounded; the oldest messages go first. Recipients at `refused.example` are
refused, so that errors can be seen, too. It serves loopback only and ends with 0 on TERM and INT.
"""

from __future__ import annotations

import argparse
import asyncio
import email
import email.policy
import json
import signal
import socketserver
import sys
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.smtp import SMTP, Envelope, Session

HOST = "127.0.0.1"
REFUSED_DOMAIN = "@refused.example"
MAX_MESSAGE_BYTES = 1024 * 1024
KEPT_MESSAGES = 10_000
KEPT_BYTES = 64 * 1024 * 1024


class Mailbox:
    """The newest messages; filled by the SMTP side, read by the HTTP side's threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._messages: deque[dict[str, Any]] = deque()
        self._bytes = 0
        self._count = 0

    def add(self, sender: str, recipients: list[str], content: bytes) -> None:
        """Keep a message, and drop the oldest ones that are too many."""
        with self._lock:
            self._count += 1
            self._messages.append(
                {
                    "id": self._count,
                    "from": sender,
                    "to": recipients,
                    "received": time.time(),
                    "content": content,
                }
            )
            self._bytes += len(content)
            while len(self._messages) > KEPT_MESSAGES or self._bytes > KEPT_BYTES:
                self._bytes -= len(self._messages.popleft()["content"])

    def newest(self, number: int) -> dict[str, Any]:
        """How many were received, and the `number` newest of those that are kept."""
        with self._lock:
            count, kept = self._count, len(self._messages)
            messages = list(islice(reversed(self._messages), number))
        return {"count": count, "kept": kept, "messages": [_summary(m) for m in messages]}

    def read(self, id: int) -> dict[str, Any] | None:
        """One message in full, or None if it is not kept (any more)."""
        with self._lock:
            position = id - self._messages[0]["id"] if self._messages else -1
            if not 0 <= position < len(self._messages):
                return None
            message = self._messages[position]
        parsed = email.message_from_bytes(message["content"], policy=email.policy.default)
        body = parsed.get_body(("plain",))
        headers = [[name, str(value)] for name, value in parsed.items()]
        text = body.get_content().replace("\r\n", "\n") if body else ""
        return {**_summary(message), "headers": headers, "text": text}


def _summary(message: dict[str, Any]) -> dict[str, Any]:
    head = message["content"].partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    subject = email.message_from_bytes(head, policy=email.policy.default)["subject"]
    summary = {key: message[key] for key in ("id", "from", "to", "received")}
    return {**summary, "subject": str(subject or ""), "bytes": len(message["content"])}


class SmtpHandler:
    """What aiosmtpd asks about each mail."""

    def __init__(self, mailbox: Mailbox, delay_seconds: float) -> None:
        self.mailbox = mailbox
        self.delay_seconds = delay_seconds

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "@" not in address:
            return "550 5.1.3 not a mail address"
        if address.lower().endswith(REFUSED_DOMAIN):
            return "550 5.1.1 no such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        content = envelope.content or b""
        assert isinstance(content, bytes)  # SMTP(decode_data=False)
        self.mailbox.add(envelope.mail_from or "", list(envelope.rcpt_tos), content)
        return "250 OK"


class HttpServer(socketserver.ThreadingTCPServer):
    """http.server's own class looks up the host's name when it binds; this one does not."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], mailbox: Mailbox) -> None:
        super().__init__(address, HttpHandler)
        self.mailbox = mailbox


class HttpHandler(BaseHTTPRequestHandler):
    """The mailbox as JSON."""

    server: HttpServer
    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        answer: Any = None
        if url.path == "/messages":
            wanted = parse_qs(url.query).get("newest", ["20"])[0]
            answer = self.server.mailbox.newest(min(int(wanted), 200) if wanted.isdecimal() else 20)
        elif url.path.startswith("/messages/"):
            id = url.path.removeprefix("/messages/")
            answer = self.server.mailbox.read(int(id)) if id.isdecimal() else None
        self._send(200, answer) if answer is not None else self._send(404, {"error": "not found"})

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """The page asks every second: not worth a line each."""


async def serve(smtp_port: int, http_port: int, delay_seconds: float) -> None:
    """Receive mail until TERM or INT; says so in one line on stdout when it is ready."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    mailbox = Mailbox()
    handler = SmtpHandler(mailbox, delay_seconds)

    def smtp() -> SMTP:
        return SMTP(
            handler,
            hostname="localhost",  # aiosmtpd would look it up in the DNS
            data_size_limit=MAX_MESSAGE_BYTES,
            enable_SMTPUTF8=True,
            loop=loop,
        )

    server = await loop.create_server(smtp, HOST, smtp_port)
    with HttpServer((HOST, http_port), mailbox) as http:
        threading.Thread(target=http.serve_forever, args=(0.1,), daemon=True).start()
        smtp_port = server.sockets[0].getsockname()[1]
        http_port = http.server_address[1]
        print(f"sink: ready smtp://{HOST}:{smtp_port} http://{HOST}:{http_port}", flush=True)
        await told.wait()
        server.close()  # open sessions end with the process: nothing in them is worth a wait
        http.shutdown()


def main() -> int:
    """Read the command line and serve; 69 if a port cannot be had."""
    parser = argparse.ArgumentParser(description="An SMTP server that only keeps what it gets.")
    parser.add_argument("--smtp-port", type=int, default=1025, help="0 takes a free one")
    parser.add_argument("--http-port", type=int, default=1026, help="0 takes a free one")
    parser.add_argument("--delay", type=float, default=0.0, metavar="MS", help="time a mail takes")
    options = parser.parse_args()
    try:
        asyncio.run(serve(options.smtp_port, options.http_port, options.delay / 1000))
    except OSError as error:
        print(f"sink: cannot listen: {error.strerror or error}", file=sys.stderr)
        return 69
    return 0


if __name__ == "__main__":
    sys.exit(main())
