"""The slow work: sending mail. It runs in the task workers, away from the page.

SMTP_HOST and SMTP_PORT say where the mail server is; without SMTP_HOST it is the example's own
sink at 127.0.0.1:1025. SMTP_USER and SMTP_PASSWORD log in there, over STARTTLS.
"""

from __future__ import annotations

import os
import smtplib
import socket
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from types import TracebackType
from typing import Any

from gtask import current_task, task

SMTP_HOST = os.environ.get("SMTP_HOST") or "127.0.0.1"
SMTP_PORT = int(os.environ.get("SMTP_PORT") or (25 if os.environ.get("SMTP_HOST") else 1025))
SMTP_USER = os.environ.get("SMTP_USER", "")
SMTP_PASSWORD = os.environ.get("SMTP_PASSWORD", "")

SMTP_TIMEOUT_SECONDS = 30.0  # for each answer of the mail server
RECONNECT_SECONDS = (0.0, 0.2, 1.0, 3.0)  # waits before each try to get a session
PROGRESS_SECONDS = 0.05  # twenty times a second is as live as eyes can tell
REPORTED_FAILURES = 100


class MailRefused(Exception):
    """The mail server, or the standard of mail, does not want this mail; others may do."""


class MailServerLost(Exception):
    """There is no mail server to be had."""


class SmtpSession:
    """A session with the mail server, opened by the first mail and again whenever it was lost.

    with SmtpSession() as session:
        session.send(message, "reader@example.org")
    """

    def __init__(self) -> None:
        self._smtp: smtplib.SMTP | None = None

    def __enter__(self) -> SmtpSession:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._smtp is not None and error is None:
            try:
                self._smtp.quit()
            except (OSError, smtplib.SMTPException):
                pass  # everything was acknowledged before
        self._drop()

    def send(self, message: EmailMessage, to: str) -> None:
        """Send one mail.

        A session that breaks is replaced and the mail sent again. If it broke after the mail was
        taken and before that was said, the mail goes out twice, with the same Message-ID.

        Raises:
            MailRefused: this mail cannot be delivered.
            MailServerLost: nor can any other, now.
        """
        for _attempt in range(2):
            smtp = self._smtp or self._open()
            try:
                smtp.send_message(message, message["From"], [to])
                return
            except smtplib.SMTPServerDisconnected as error:
                lost: Exception = error
            except (smtplib.SMTPException, UnicodeError, ValueError) as error:
                if smtp.sock is not None:
                    raise MailRefused(_reason(error)) from error
                lost = error  # the server has said 421: it is closing
            except OSError as error:  # a reset or a timeout
                lost = error
            self._drop()
        raise MailServerLost(f"the session broke twice: {_reason(lost)}")

    def _open(self) -> smtplib.SMTP:
        for seconds in RECONNECT_SECONDS:
            time.sleep(seconds)
            try:
                self._smtp = _connect()
                return self._smtp
            except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError) as error:
                raise MailServerLost(f"cannot log in: {_reason(error)}") from error
            except (OSError, smtplib.SMTPException) as error:
                lost = error
        raise MailServerLost(f"cannot reach {SMTP_HOST}:{SMTP_PORT}: {_reason(lost)}") from lost

    def _drop(self) -> None:
        if self._smtp is not None:
            self._smtp.close()
            self._smtp = None


def _connect() -> smtplib.SMTP:
    # Without a name of our own smtplib looks one up in the DNS, for each session.
    smtp = smtplib.SMTP(SMTP_HOST, SMTP_PORT, socket.gethostname(), SMTP_TIMEOUT_SECONDS)
    if SMTP_USER:
        try:
            smtp.starttls()
            smtp.login(SMTP_USER, SMTP_PASSWORD)
        except BaseException:
            smtp.close()
            raise
    return smtp


def _reason(error: Exception) -> str:
    """What went wrong, in the mail server's own words where it had some."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        code, words = next(iter(error.recipients.values()))
        return f"{code} {words.decode(errors='replace')}"
    if isinstance(error, smtplib.SMTPResponseException):
        said = error.smtp_error
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        return f"{error.smtp_code} {text}"
    return str(error) or type(error).__name__


def _compose(from_: str, to: str, contents: str) -> EmailMessage:
    message = EmailMessage()
    try:
        message["From"] = from_
        message["To"] = to
        message["Subject"] = contents.strip().partition("\n")[0][:78] or "(no subject)"
        message["Date"] = formatdate()
        message["Message-ID"] = make_msgid(domain="gtask.example")
        message.set_content(contents)
    except (ValueError, IndexError) as error:  # e.g. a line break in an address
        raise MailRefused(str(error)) from error
    return message


@task
def send_mail(from_: str, to: str, contents: str) -> dict[str, Any]:
    """Send one mail.

    Returns:
        ``{"sent": 1, "failed": 0, "failures": [], "seconds": ...}``, as `send_newsletter`.

    Raises:
        MailRefused, MailServerLost: with the mail server's words.
    """
    started = time.monotonic()
    with SmtpSession() as session:
        session.send(_compose(from_, to, contents), to)
    return {"sent": 1, "failed": 0, "failures": [], "seconds": time.monotonic() - started}


@task(timeout=0)  # a long list takes as long as it takes; each answer of the server has its limit
def send_newsletter(from_: str, recipients: list[str], contents: str) -> dict[str, Any]:
    """Send the same contents to each of `recipients`, a mail each, in one SMTP session.

    Returns:
        ``{"sent": int, "failed": int, "failures": [{"to", "reason"}], "seconds": float}``; the
        first hundred failures are told.

    Raises:
        MailServerLost: the server went for good; the message says how many mails it took.
    """
    started = told = time.monotonic()
    sent = failed = 0
    failures: list[dict[str, str]] = []
    with SmtpSession() as session:
        for to in recipients:
            try:
                session.send(_compose(from_, to, contents), to)
                sent += 1
            except MailRefused as refused:
                failed += 1
                if len(failures) < REPORTED_FAILURES:
                    failures.append({"to": to, "reason": str(refused)})
            except MailServerLost as lost:
                raise MailServerLost(
                    f"{sent} of {len(recipients)} mails sent, then: {lost}"
                ) from lost
            now = time.monotonic()
            if now - told >= PROGRESS_SECONDS:
                told = now
                current_task().progress(sent + failed, len(recipients), to)
    current_task().progress(sent + failed, len(recipients), "")
    seconds = time.monotonic() - started
    return {"sent": sent, "failed": failed, "failures": failures, "seconds": seconds}
