"""The TLS options that the calling programs share."""

from __future__ import annotations

import argparse
import ssl


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options that `tls_context` reads."""
    group = parser.add_argument_group("TLS")
    group.add_argument("--tls", action="store_true", help="speak TLS; implied by those below")
    group.add_argument("--cafile", metavar="FILE", help="trust the servers that these CAs certify")
    group.add_argument("--cert", metavar="FILE", help="show this certificate")
    group.add_argument("--key", metavar="FILE", help="its key, if that is not in the same file")
    group.add_argument("--insecure", action="store_true", help="trust any server")


def tls_context(options: argparse.Namespace) -> ssl.SSLContext | None:
    """What the options ask for; None for no TLS.

    Raises:
        ValueError: a file cannot be used.
    """
    if options.key and not options.cert:
        raise ValueError("--key needs --cert")
    if not (options.tls or options.cafile or options.cert or options.insecure):
        return None
    try:
        context = ssl.create_default_context(cafile=options.cafile)
        if options.cert:
            context.load_cert_chain(options.cert, options.key)
    except OSError as error:  # an ssl.SSLError is one, too
        files = ", ".join(filter(None, (options.cafile, options.cert, options.key)))
        raise ValueError(f"{files}: {error.strerror or error}") from None
    if options.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
