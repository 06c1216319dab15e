"""A certificate for tests, made by openssl once in a run."""

from __future__ import annotations

import functools
import ssl
import subprocess
import tempfile
from pathlib import Path


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gtask-certificate-"))
    words = (
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x.test"
    )
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", "key.pem", "-out", "certificate.pem"]
    subprocess.run(
        ["openssl", *words.split(), *names, *files], cwd=folder, check=True, capture_output=True
    )
    return folder


def serving() -> ssl.SSLContext:
    """For the end that serves."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(_folder() / "certificate.pem", _folder() / "key.pem")
    return context


def trusting() -> ssl.SSLContext:
    """For a caller that trusts it."""
    return ssl.create_default_context(cafile=str(_folder() / "certificate.pem"))


def distrusting() -> ssl.SSLContext:
    """For a caller that has never heard of it."""
    return ssl.create_default_context()
