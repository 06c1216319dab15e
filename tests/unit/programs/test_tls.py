"""The TLS options of the programs that call."""

from __future__ import annotations

import argparse
import ssl

import pytest

from gtask.programs.tls import add_tls_options, tls_context


def context(*words: str) -> ssl.SSLContext | None:
    parser = argparse.ArgumentParser()
    add_tls_options(parser)
    return tls_context(parser.parse_args(words))


def test_none_is_asked_for():
    assert context() is None


def test_servers_are_checked_unless_told_otherwise():
    assert context("--tls").verify_mode == ssl.CERT_REQUIRED
    assert context("--tls").check_hostname
    assert context("--insecure").verify_mode == ssl.CERT_NONE


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--key", "k.pem"), "--key needs --cert"),
        (("--cafile", "/no/such"), "^/no/such: No such file"),
        (("--cert", "/no/cert", "--key", "/no/key"), "^/no/cert, /no/key: No such file"),
        (("--cafile", __file__), f"^{__file__}: "),
    ],
)
def test_files_that_cannot_be_used(words, complaint):
    with pytest.raises(ValueError, match=complaint):
        context(*words)
